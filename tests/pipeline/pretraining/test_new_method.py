"""A new method is a file in `pipeline/methods` and, if it trains in a new way, a trainer; here is a toy of both.

Not here: the recipe's schema, names and assets of a new method (tests/pipeline/test_methods.py).
"""

import pytest
import torch
from torch import nn

from pipeline.methods import METHODS, Method, TrainingSettings
from pipeline.pretraining.curves import SCORE_TITLES, by_panel_title
from pipeline.pretraining.dataset import training_batches, validation_batches
from pipeline.pretraining.encoder_folder import read_curves
from pipeline.pretraining.job import MethodRun, own_share, placed, plan_of
from pipeline.pretraining.plan import PlannedEncoder
from pipeline.pretraining.preflight import preflight
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import silent
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam, training_device
from pipeline.training.seeds import seeded

pytestmark = pytest.mark.usefixtures("tiny_backbone")


class BrightnessTraining:
    """Training of an encoder to predict the mean brightness of an image."""

    result_networks = ("encoder",)
    metrics = ("train_loss",)
    selected_by = "val_error"

    def __init__(self, encoder, head, pool, normalization, settings):
        self.pool, self.normalization, self.settings = pool, normalization, settings
        self.network = nn.Sequential(encoder, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        optimizer = adam(self.network.parameters(), settings.learning_rate, settings.betas)
        self.trained = Trained({"encoder": encoder, "head": head}, {"network": optimizer})

    def batches(self, epoch, first_step):
        self.network.train()
        return training_batches(self.pool, self.normalization, self.settings, epoch, first_step)

    def step(self, batch):
        loss, optimizer = self.error(batch), self.trained.optimizers["network"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach().unsqueeze(0)

    def error(self, batch):
        return (self.network(batch.x_N1HW).squeeze(1) - batch.x_N1HW.mean(dim=(1, 2, 3))).square().mean()

    @torch.no_grad()
    def validate(self):
        self.network.eval()
        (batch,) = validation_batches(self.pool, self.normalization, len(self.pool.val))
        error = self.error(batch).item()
        return {"val_loss": error, "val_error": error}

    def check_divergence(self, curves):
        pass


class BrightnessRun(MethodRun):
    def __init__(self, job, normalization):
        pool, settings = own_share(job.pool, job.settings)
        self.encoder = placed(job.fresh_encoder(), settings)
        with seeded(settings.seed, "head"):
            head = placed(nn.Linear(self.encoder.channels[-1], 1), settings)
        trainer = BrightnessTraining(self.encoder, head, pool.to(training_device()), normalization, settings)
        self.training = trainer, plan_of(job)


BRIGHTNESS = Method(
    name="brightness",
    label="Brightness",
    description="trained to predict brightness",
    card="Trained to predict the mean brightness of an image.",
    trainer=f"{__name__}:BrightnessRun",
    settings=TrainingSettings,
    curve_titles={"val_error": "error of the brightness, validation"},
)


@pytest.fixture(autouse=True)
def brightness(monkeypatch):
    monkeypatch.setitem(METHODS, BRIGHTNESS.name, BRIGHTNESS)


@pytest.fixture
def own_settings(settings):
    return TrainingSettings(**settings.model_dump(include=set(TrainingSettings.model_fields)))


def test_a_new_method_trains_into_a_folder_like_every_other(pool, own_settings, tmp_path):
    outcome = pretrain("resnet50", "brightness", pool, own_settings, tmp_path, silent, lambda *_: None)
    assert outcome.status == "ran"
    names = {path.name for path in tmp_path.iterdir()}
    assert {"encoder.safetensors", "preprocessing.json", "model_card.md", "curves.csv", "outcome.json"} <= names
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "pretrained by brightness" in card and BRIGHTNESS.card in card and "the lowest val_error of 3" in card
    title, *scores = by_panel_title(read_curves(tmp_path), BRIGHTNESS)
    assert title == "error of the brightness, validation"
    assert scores == list(SCORE_TITLES.values())


def test_a_new_method_is_forecast_like_every_other(pool, own_settings, tmp_path):
    planned = PlannedEncoder("one", "resnet50", "brightness", "brightness", "own", own_settings, tmp_path / "encoder")
    (forecast,) = preflight([planned], pool, list, silent)
    assert (forecast.name, forecast.steps) == ("one", 9)
    assert forecast.weights > 0
