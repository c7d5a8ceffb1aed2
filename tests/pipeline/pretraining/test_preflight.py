"""Preflight of pretraining: steps left, hours, bytes on disk, refusals."""

import json
from types import SimpleNamespace

import pytest
import torch

from pipeline.errors import UserError
from pipeline.pretraining import preflight as pretraining_preflight
from pipeline.pretraining.plan import PlannedEncoder
from pipeline.pretraining.preflight import preflight, unfinished_encoders
from pipeline.pretraining.pretrain import fingerprint_of, pretrain, trainer_of
from pipeline.progress import silent
from pipeline.training import preflight as training_preflight
from pipeline.training.checkpoint import write_checkpoint
from pipeline.training.loop import CHECKPOINT_LAYOUT
from pipeline.training.outcome import Outcome
from pipeline.training.preflight import forecasts
from tests.pipeline.pretraining.conftest import settings_of

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture
def steps_take(monkeypatch):
    """Makes every step take one second and one of them two."""
    monkeypatch.setattr(training_preflight, "time_steps", lambda trainer: [1.0, 2.0, 1.0])


def planned(method, settings, folder):
    return PlannedEncoder(
        f"resnet50 {method}", "resnet50", method, method, "own", settings_of(method, settings), folder
    )


def no_sources():
    raise AssertionError("nothing here is shown sources")


def forecast_of(encoder, pool):
    """The forecast of one encoder, None if it is trained completely."""
    return next(iter(forecasts(unfinished_encoders([encoder], pool, no_sources), silent)), None)


def quietly(epoch, metrics):
    pass


@pytest.mark.parametrize("method", ["dcm", "ce", "ce_dcm"])
def test_hours_are_steps_and_validation_between_bounds(method, pool, settings, tmp_path, steps_take):
    forecast = forecast_of(planned(method, settings, tmp_path / "encoder"), pool)
    assert forecast.steps == 3 * (12 // 4)  # epochs, training images, a batch
    # Each of three epochs validates four images, a batch's worth: a sixth to a half of a step. After the last, the
    # features of 12 training images, four validation images and two views of these are scored: six batches.
    assert forecast.hours == pytest.approx(((9 + 9 / 6) / 3600, 1.3 * 2 * (9 + 9 / 2) / 3600))
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize("method", ["dcm", "ce_dcm"])
@pytest.mark.integration
def test_bytes_on_disk_are_those_of_the_files(method, pool, settings, tmp_path):
    forecast = forecast_of(planned(method, settings, tmp_path / "encoder"), pool)
    trainer = trainer_of("resnet50", method, pool, settings_of(method, settings))
    for batch in trainer.batches(1, 0):
        trainer.step(batch)
    best = {
        f"{n}/{k}": t.clone()
        for n in trainer.result_networks
        for k, t in trainer.trained.networks[n].state_dict().items()
    }
    write_checkpoint(tmp_path / "checkpoint", trainer.trained, {}, best)
    wanted = [spec for name, spec in header(tmp_path / "checkpoint").items() if not name.startswith(("random/", "__"))]
    assert forecast.checkpoints == 2 * sum(end - start for start, end in (spec["data_offsets"] for spec in wanted))
    pretrain("resnet50", method, pool, settings_of(method, settings), tmp_path / "done", silent, quietly)
    files = [tmp_path / "done" / f"{name}.safetensors" for name in ("encoder", "decoder", "head")]
    weights = [
        sum(spec["data_offsets"][1] - spec["data_offsets"][0] for key, spec in header(path).items() if key[:2] != "__")
        for path in files
        if path.is_file()
    ]
    assert forecast.weights == weights[0] + sum(weights)


def header(path):
    """The header of a safetensors file: 8 bytes of its length, then JSON."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_finished_and_untrained_encoders_are_not_forecast(pool, settings, tmp_path):
    said = []

    def of(settings):
        return [planned(method, settings, tmp_path / method) for method in ("baseline", "imagenet", "dcm")]

    pretrain("resnet50", "dcm", pool, settings_of("dcm", settings), tmp_path / "dcm", silent, quietly)
    assert preflight(of(settings), pool, no_sources, said.append) == []
    assert said == ["Preflight: there is nothing to train."]
    longer = settings.model_copy(update={"epochs": 5})
    (forecast,) = preflight(of(longer), pool, no_sources, said.append)
    assert forecast.name == "resnet50 dcm"
    assert "for the encoders" in said[-1]


def test_a_finished_encoder_of_an_earlier_version_is_not_forecast(pool, settings, tmp_path):
    Outcome("ran", "", fingerprint_of("resnet50", "ce", pool, settings_of("ce", settings), "2")).write(tmp_path)
    assert forecast_of(planned("ce", settings, tmp_path), pool) is None


def test_a_checkpoint_reduces_the_steps_left(pool, settings, tmp_path):
    fingerprint = fingerprint_of("resnet50", "dcm", pool, settings_of("dcm", settings))
    trainer = trainer_of("resnet50", "dcm", pool, settings_of("dcm", settings))
    done = {"curves": [{"val_loss": 1.0}], "best_epoch": 1, "steps": 2}
    state = {"fingerprint": fingerprint, "layout": CHECKPOINT_LAYOUT, **done}
    write_checkpoint(tmp_path / "checkpoint.safetensors", trainer.trained, state)
    assert forecast_of(planned("dcm", settings, tmp_path), pool).steps == 9 - 3 - 2


@pytest.mark.integration
def test_the_training_afterwards_is_the_same(pool, settings, tmp_path):
    torch.manual_seed(5)
    pretrain("resnet50", "ce_dcm", pool, settings_of("ce_dcm", settings), tmp_path / "without", silent, quietly)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    preflight([planned("ce_dcm", settings, tmp_path / "with")], pool, no_sources, silent)
    assert torch.equal(torch.random.get_rng_state(), before)
    pretrain("resnet50", "ce_dcm", pool, settings_of("ce_dcm", settings), tmp_path / "with", silent, quietly)
    name = "encoder.safetensors"
    assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_a_disk_that_cannot_hold_the_encoders_is_refused(pool, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining_preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    with pytest.raises(UserError, match=r"^Pretraining needs \d+ MB of disk, and 0 MB are free"):
        preflight([planned("dcm", settings, tmp_path / "a" / "b")], pool, no_sources, silent)


def test_a_pool_smaller_than_a_batch_is_refused_as_by_training(pool, settings, tmp_path):
    large = settings.model_copy(update={"batch_size": 64})
    with pytest.raises(UserError, match="batch_size is 64"):
        preflight([planned("dcm", large, tmp_path)], pool, no_sources, silent)
