"""Fine-tuning a cell: training, selection, files, and finished cells."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import pipeline.downstream.finetune as module
from pipeline.downstream.finetune import FineTuning, LabelledBatch, _fingerprint, finetune
from pipeline.downstream.model_folder import describe, read_description
from pipeline.downstream.ordinal import encode
from pipeline.downstream.predictions import PREDICTIONS, Cell, unpack_mask
from pipeline.downstream.predictor import Predictor
from pipeline.errors import UserError
from pipeline.files import digest, read_table, write_json
from pipeline.networks.encoders import build_encoder
from pipeline.networks.unet import UNet
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.progress import silent
from pipeline.recipe.arms import Arm
from pipeline.recipe.downstream import Champion, Task
from pipeline.settings import Backbone
from pipeline.training import loop
from pipeline.training.device import COMPILE_FROM_STEPS, supports_bfloat16
from pipeline.training.outcome import Outcome
from pipeline.training.tensors import read_tensors, write_tensors
from tests.pipeline.downstream.conftest import data, task


@dataclass
class Run:
    folder: Path
    outcome: Outcome = field(init=False)
    epochs: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    @property
    def predictions(self) -> pa.Table:
        return read_table(self.folder / "predictions.parquet")


def cell(arm: Arm, kind: str, seed: int = 0) -> Cell:
    return Cell("tiny", "resnet50", arm, kind, 1.0, seed)


Runner = Callable[[Cell, Task, Path], Run]


@pytest.fixture(scope="module")
def run(encoder_folder: Path) -> Runner:
    def finetuned(which: Cell, how: Task, folder: Path) -> Run:
        done = Run(folder)
        done.outcome = finetune(
            which, how, data(which.task), encoder_folder, folder, silent, lambda *args: done.epochs.append(args)
        )
        return done

    return finetuned


@pytest.fixture(scope="module")
def quality(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(cell("ce", "ordinal"), task("ordinal", epochs=2), tmp_path_factory.mktemp("quality"))


@pytest.fixture(scope="module")
def frozen(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(cell("ce_dcm_frozen", "segmentation"), task("segmentation"), tmp_path_factory.mktemp("frozen"))


def training(run: Run, kind: str, arm: Arm, encoder_folder: Path, seed: int = 0) -> FineTuning:
    """The same training with the weights of the selected epoch."""
    again = FineTuning(cell(arm, kind, seed), task(kind), data(kind), encoder_folder)
    again.network.load_state_dict(read_tensors(run.folder / "model.safetensors"))
    return again


@pytest.mark.integration
def test_a_cell_that_ran_has_its_files_and_reports_every_epoch(quality: Run) -> None:
    assert quality.outcome.status == "ran"
    assert Outcome.read(quality.folder) == quality.outcome
    assert sorted(path.name for path in quality.folder.iterdir()) == [
        "curves.csv",
        "model.json",
        "model.safetensors",
        "outcome.json",
        "predictions.parquet",
        "validation.parquet",
    ]
    rows = list(csv.DictReader((quality.folder / "curves.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2] == [epoch for epoch, _ in quality.epochs]
    assert [float(row["val_loss"]) for row in rows] == [metrics["val_loss"] for _, metrics in quality.epochs]


def test_the_epoch_with_the_lowest_validation_loss_is_kept(quality: Run, encoder_folder: Path) -> None:
    kept = training(quality, "ordinal", "ce", encoder_folder).validate()["val_loss"]
    assert kept == pytest.approx(min(metrics["val_loss"] for _, metrics in quality.epochs), rel=1e-5)


def test_the_validation_loss_is_the_weighted_cross_entropy_of_all_validation_images(
    quality: Run, encoder_folder: Path
) -> None:
    tuned, images = training(quality, "ordinal", "ce", encoder_folder), data("ordinal")
    tuned.network.eval()
    with torch.no_grad():
        logits = tuned.network((images.images_NHW[images.val].float()[:, None] - 80) / 40).double().numpy()
    codes, trained = (encode(images.truth[side].numpy(), 3) for side in (images.val, images.train))
    weights = (1 - trained).sum(axis=0) / trained.sum(axis=0)
    p = 1 / (1 + np.exp(-logits))
    expected = -(weights * codes * np.log(p) + (1 - codes) * np.log(1 - p)).mean()
    assert tuned.validate()["val_loss"] == pytest.approx(expected, rel=1e-4)


def test_ordinal_predictions_hold_truth_and_scores_of_every_test_image(quality: Run) -> None:
    rows = quality.predictions
    assert rows.schema.equals(PREDICTIONS)
    assert rows["image_id"].to_pylist() == [16, 17, 18, 19]
    assert rows["patient"].to_pylist() == ["patient 8", "patient 8", "patient 9", "patient 9"]
    assert rows["truth"].to_pylist() == [1, 2, 0, 1]
    assert {len(scores) for scores in rows["scores"].to_pylist()} == {2}
    assert set(rows["n_train"].to_pylist()) == {12}
    assert set(rows["n_train_patients"].to_pylist()) == {6}
    assert rows["intersection"].null_count == len(rows)


def test_validation_predictions_are_of_the_validation_images_and_name_their_encoder(
    quality: Run, encoder_folder: Path
) -> None:
    """Scores are those of the selected network, without augmentation."""
    rows = read_table(quality.folder / "validation.parquet")
    assert rows.schema.equals(PREDICTIONS)
    assert rows["image_id"].to_pylist() == [12, 13, 14, 15]
    files = [(encoder_folder / name).read_bytes() for name in ("encoder.safetensors", "preprocessing.json")]
    assert rows.schema.metadata[b"encoder_digest"].decode() == digest(*files)
    tuned, images = training(quality, "ordinal", "ce", encoder_folder), data("ordinal")
    tuned.network.eval()
    with torch.no_grad():
        x_N1HW = (images.images_NHW[12:16, None].float() - 80.0) / 40.0
        expected = torch.sigmoid(tuned.network(x_N1HW)).numpy()
    assert np.allclose(np.array(rows["scores"].to_pylist()), expected, atol=1e-4)


def test_segmentation_predictions_count_the_pixels_of_each_foreground_class(frozen: Run, encoder_folder: Path) -> None:
    tuned, images = training(frozen, "segmentation", "ce_dcm_frozen", encoder_folder), data("segmentation")
    tuned.network.eval()
    with torch.no_grad():
        logits = tuned.network((images.images_NHW[images.test].float()[:, None] - 80) / 40).numpy()
    predicted = np.concatenate([np.zeros_like(logits[:, :1]), logits], axis=1).argmax(axis=1)
    truth = images.truth[images.test].numpy()
    for row, p, t in zip(frozen.predictions.to_pylist(), predicted, truth, strict=True):
        assert row["predicted_pixels"] == [(p == 1).sum(), (p == 2).sum()]
        assert row["truth_pixels"] == [(t == 1).sum(), (t == 2).sum()]
        assert row["intersection"] == [((p == 1) & (t == 1)).sum(), ((p == 2) & (t == 2)).sum()]
        assert row["scores"] is row["truth"] is None
        assert np.array_equal(unpack_mask(row["predicted_mask"]), p)
        assert np.array_equal(unpack_mask(row["truth_mask"]), t)


def test_a_model_folder_alone_gives_the_predictions_of_its_test_images_again(
    quality: Run, frozen: Run, tmp_path: Path
) -> None:
    for run, kind in ((quality, "ordinal"), (frozen, "segmentation")):
        folder, images = tmp_path / kind, data(kind)
        folder.mkdir()
        for name in ("model.json", "model.safetensors"):
            (folder / name).write_bytes((run.folder / name).read_bytes())
        model, test = Predictor(folder), [images.images_NHW[position].numpy() for position in images.test]
        if kind == "ordinal":
            assert np.allclose(model.scores(test), run.predictions["scores"].to_pylist(), atol=1e-5)
        else:
            counts = [[(p == 1).sum().item(), (p == 2).sum().item()] for p in model.probabilities(test).argmax(dim=1)]
            assert counts == run.predictions["predicted_pixels"].to_pylist()


def test_a_model_describes_its_training_images(quality: Run) -> None:
    said = Predictor(quality.folder).description
    assert (said.task, said.arm, said.kind, said.classes) == (
        "ordinal",
        "ce",
        "ordinal",
        ("background", "bright", "dark"),
    )
    assert (said.height, said.width, said.mean, said.sd) == (32, 64, 80.0, 40.0)
    assert (said.cropped_by, said.modalities) == (("detected",), ("US",))


def test_a_model_s_description_of_images_covers_only_those_it_was_trained_on() -> None:
    images = data("ordinal")
    mixed = replace(
        images, cropped_by=("regions",) * 12 + ("whole",) * 8, modalities=("US", None, "CT") + (None,) * 9 + ("MR",) * 8
    )
    read = Preprocessing("resnet50", 32, 64, mean=80.0, sd=40.0)
    said = describe(cell("ce", "ordinal"), task("ordinal"), "resnet50_ce_seed-0", read, mixed, mixed.train)
    assert (said.cropped_by, said.modalities) == (("regions",), ("CT", "US"))
    assert describe(
        cell("ce", "ordinal"), task("ordinal"), "resnet50_ce_seed-0", read, mixed, mixed.train[3:]
    ).modalities == ("US",)


def test_a_frozen_encoder_keeps_its_parameters_and_its_batch_norm_statistics_bit_for_bit(
    frozen: Run, encoder_folder: Path
) -> None:
    before = read_tensors(encoder_folder / "encoder.safetensors")
    after = read_tensors(frozen.folder / "model.safetensors")
    assert any("running_var" in name for name in before)
    assert all(torch.equal(after[f"encoder.backbone.{name}"], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("arm", ["ce_frozen", "dcm_frozen", "mine_frozen"])
def test_every_frozen_arm_trains_what_is_on_its_encoder_alone(arm: Arm, encoder_folder: Path) -> None:
    tuned = FineTuning(cell(arm, "segmentation"), task("segmentation"), data("segmentation"), encoder_folder)
    before = {name: tensor.clone() for name, tensor in tuned.network.state_dict().items()}
    tuned.step(next(tuned.batches(1, 0)))
    after = tuned.network.state_dict()
    same = {name for name, tensor in before.items() if torch.equal(after[name], tensor)}
    assert same == {name for name in before if name.startswith("encoder.")}


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
def test_a_segmentation_model_from_before_its_network_had_a_version_is_read_as_version_1(
    backbone: Backbone, tmp_path: Path
) -> None:
    """Version 1's last up-block mixes 16 channels and the image; model.json has no version."""
    read = Preprocessing(backbone, 32, 64, mean=80.0, sd=40.0)
    which = replace(cell("ce", "segmentation"), backbone=backbone)
    of_today = describe(which, task("segmentation"), "x", read, data("segmentation"), torch.arange(2))
    fields = of_today.model_dump(mode="json")
    assert fields.pop("unet") == 2
    write_json(tmp_path / "model.json", fields)
    network = UNet(build_encoder(backbone), 3)
    network.up_blocks[-1].mix[0] = torch.nn.Conv2d(16 + 1, 16, 3, padding=1, bias=False)
    write_tensors(tmp_path / "model.safetensors", network.state_dict())
    model = Predictor(tmp_path)
    (mask,) = model.probabilities([np.zeros((32, 64), np.uint8)])
    assert mask.shape == (3, 32, 64)
    write_json(tmp_path / "model.json", fields | {"unet": 2})
    with pytest.raises(UserError, match=r"model\.safetensors.*model\.json"):
        Predictor(tmp_path)


def test_another_version_of_the_segmentations_network_is_another_model_and_no_other_task_changes(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained = Outcome("ran", "", "f")
    for kind, changes in (("segmentation", True), ("ordinal", False)):
        now, before = (
            _fingerprint(cell("ce", kind), task(kind), data(kind), encoder_folder, pretrained, "float32")
            for _ in _versions(monkeypatch)
        )
        assert (now != before) == changes


def _versions(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for version in (2, 1):
        monkeypatch.setattr("pipeline.downstream.finetune.UNET", version)
        yield version


def test_an_encoder_that_is_not_frozen_learns(quality: Run, encoder_folder: Path) -> None:
    before = read_tensors(encoder_folder / "encoder.safetensors")
    after = read_tensors(quality.folder / "model.safetensors")
    same = [name for name in before if torch.equal(after[f"encoder.backbone.{name}"], before[name])]
    assert not same


@pytest.mark.integration
def test_the_same_seed_gives_the_same_predictions(quality: Run, run: Runner, tmp_path: Path) -> None:
    torch.rand(5)  # what was drawn before must not matter
    again = run(cell("ce", "ordinal"), task("ordinal", epochs=2), tmp_path)
    assert again.predictions.equals(quality.predictions)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_every_arm_sees_the_same_images_and_another_seed_others(fraction: float, encoder_folder: Path) -> None:
    def batches(arm: Arm, seed: int, epoch: int) -> torch.Tensor:
        which = replace(cell(arm, "segmentation", seed), fraction=fraction)
        tuned = FineTuning(which, task("segmentation"), data("segmentation"), encoder_folder)
        return torch.cat([torch.cat([x[:, 0], masks]) for x, masks in tuned._training_batches(epoch)])

    first = batches("ce", 0, 1)
    assert torch.equal(first, batches("ce_dcm_frozen", 0, 1))
    assert not torch.equal(first, batches("ce", 1, 1))
    assert not torch.equal(first, batches("ce", 0, 2))


def test_the_optimizer_is_that_of_table_a2(encoder_folder: Path) -> None:
    how = task("ordinal").model_copy(update={"learning_rate": {"resnet50": 5e-5, "vgg16_bn": 1e-4}})
    (group,) = FineTuning(cell("ce", "ordinal"), how, data("ordinal"), encoder_folder).optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (5e-5, (0.9, 0.999), 0)


def test_masks_move_with_their_images(encoder_folder: Path) -> None:
    tuned = FineTuning(cell("ce", "segmentation"), task("segmentation"), data("segmentation"), encoder_folder)
    for x_N1HW, masks_NHW in tuned._training_batches(1):
        grey_NHW = x_N1HW[:, 0] * 40 + 80
        assert masks_NHW.unique().tolist() == [0, 1, 2]
        assert (grey_NHW[masks_NHW == 2] < 60).all()  # the dark ellipse is dark: 80 ± 10 times 0.3
        assert (grey_NHW[masks_NHW == 1] > 50).all()


@pytest.mark.parametrize("kind", ["ordinal", "segmentation"])
@pytest.mark.integration
def test_a_training_that_is_stopped_within_an_epoch_ends_with_the_same_bits(
    kind: str, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "fit", partial(loop.fit, checkpoint_seconds=0))
    which, how = cell("ce", kind), task(kind, epochs=2)
    whole = run(which, how, tmp_path / "whole")
    step, steps = FineTuning.step, iter(range(4))  # of three an epoch: the second epoch has begun

    def stopped(self: FineTuning, batch: LabelledBatch) -> torch.Tensor:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FineTuning, "step", stopped)
        run(which, how, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "outcome.json").exists()
    taken: list[int] = []
    monkeypatch.setattr(FineTuning, "step", lambda self, batch: (taken.append(1), step(self, batch))[1])
    again = run(which, how, tmp_path / "stopped")
    assert len(taken) == 2
    assert again.epochs == whole.epochs
    assert again.predictions.equals(whole.predictions)
    one, other = (read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_positives_weigh_by_the_images_that_are_trained_on_alone(encoder_folder: Path) -> None:
    """Neither the rest of the training split nor validation and test images count."""
    images, how = data("ordinal"), task("ordinal")
    part = FineTuning(replace(cell("ce", "ordinal"), fraction=0.5), how, images, encoder_folder)
    weights = []
    for threshold in range(2):
        above = sum(int(images.truth[position]) > threshold for position in part.train.tolist())
        weights.append(max(len(part.train) - above, 1) / max(above, 1))
    logits, codes = torch.zeros(1, 2), torch.ones(1, 2)
    expected = np.log(2) * np.mean(weights)  # the loss of a positive at 0 is its weight times log 2
    assert len(part.train) == 6
    assert part.objective.loss(logits, codes).item() == pytest.approx(expected, rel=1e-6)
    everyone = FineTuning(cell("ce", "ordinal"), how, images, encoder_folder).objective.loss(logits, codes).item()
    assert everyone != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["ordinal", "segmentation"])
def test_batches_are_those_that_one_after_the_other_would_be_moved(
    kind: str, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are prepared at once."""

    def batches() -> list[torch.Tensor]:
        return [
            part
            for batch in FineTuning(cell("ce", kind), task(kind), data(kind), encoder_folder).batches(1, 1)
            for part in batch
        ]

    together = batches()
    monkeypatch.setattr(module, "_PREPARED", 1)
    apart = batches()
    assert len(together) == len(apart) == 4  # two of three batches remain, each images and targets
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


@pytest.mark.integration
def test_a_model_of_few_images_trains_for_the_steps_that_the_task_requires(
    run: Runner, encoder_folder: Path, tmp_path: Path
) -> None:
    """Twelve images in batches of four, two epochs: three steps each; seven are required, so two passes an epoch."""
    which, plain = cell("ce", "ordinal"), task("ordinal", epochs=2)
    asked = plain.model_copy(update={"min_steps": 7})
    more = run(which, asked, tmp_path)
    assert [epoch for epoch, _ in more.epochs] == [1, 2]
    assert more.outcome.fingerprint != run(which, plain, tmp_path).outcome.fingerprint
    twice, once = (FineTuning(which, how, data("ordinal"), encoder_folder) for how in (asked, plain))
    assert (twice.plan.epochs, twice.plan.steps) == (2, 6)
    passes = [*once.batches(3, 0), *once.batches(4, 0)]
    for first_step in (0, 4):  # in the middle of the second pass, as after a checkpoint
        second_epoch = list(twice.batches(2, first_step))
        assert len(second_epoch) == 6 - first_step
        for (images, targets), (expected_images, expected) in zip(second_epoch, passes[first_step:], strict=True):
            assert torch.equal(images, expected_images) and torch.equal(targets, expected)


@pytest.mark.integration
def test_steps_that_are_there_anyway_change_nothing_of_a_model(run: Runner, tmp_path: Path) -> None:
    """Two tasks with one pass over the images per epoch differ only in their settings."""
    plain = task("ordinal", epochs=2)
    few, none = (plain.model_copy(update={"min_steps": least}) for least in (5, 6))
    runs = [run(cell("ce", "ordinal"), how, tmp_path / str(how.min_steps)) for how in (plain, few, none)]
    assert runs[0].predictions.equals(runs[1].predictions) and runs[0].predictions.equals(runs[2].predictions)


def test_a_model_names_the_encoder_from_which_it_started(quality: Run, encoder_folder: Path) -> None:
    assert read_description(quality.folder).encoder == encoder_folder.name


@pytest.mark.skipif(not supports_bfloat16(torch.device("cpu")), reason="this CPU has no arithmetic for bfloat16")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("kind", ["ordinal", "segmentation"])
@pytest.mark.integration
def test_precision_is_of_the_steps_alone_and_their_losses_are_float32(kind: str, encoder_folder: Path) -> None:
    seen: dict[str, torch.dtype] = {}
    losses, tuned = {}, {}
    how = task(kind).model_copy(update={"dropout": 0.0})
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        tuned[precision] = FineTuning(cell("ce", kind), how, data(kind), encoder_folder, precision)
        first = next(m for m in tuned[precision].network.modules() if isinstance(m, torch.nn.Conv2d))
        first.register_forward_hook(lambda _, __, y: seen.update(convolution=y.dtype))
        losses[precision] = tuned[precision].step(next(tuned[precision].batches(1, 0)))
        assert seen["convolution"] == getattr(torch, precision)
        assert losses[precision].dtype == torch.float32
        assert {parameter.dtype for parameter in tuned[precision].network.parameters()} == {torch.float32}
        tuned[precision].validate()
        assert seen["convolution"] == torch.float32
    assert losses["bfloat16"].item() == pytest.approx(losses["float32"].item(), rel=0.15)
    assert losses["bfloat16"].item() != losses["float32"].item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("kind", ["ordinal", "segmentation"])
def test_steps_recorded_as_graphs_give_the_losses_of_plain_steps(kind: str, encoder_folder: Path) -> None:
    def losses(epochs: int) -> torch.Tensor:
        torch.manual_seed(0)
        how = task(kind, epochs).model_copy(update={"dropout": 0.0})
        tuned = FineTuning(cell("ce", kind), how, data(kind), encoder_folder)
        assert (tuned._logits is tuned.network) == (epochs == 1)
        return torch.cat([tuned.step(batch) for epoch in (1, 2) for batch in tuned.batches(epoch, 0)])

    assert torch.allclose(losses(COMPILE_FROM_STEPS), losses(1), rtol=1e-2)


def test_nothing_is_done_if_the_same_cell_ran_before(quality: Run, run: Runner) -> None:
    written = (quality.folder / "outcome.json").stat().st_mtime_ns
    again = run(cell("ce", "ordinal"), task("ordinal", epochs=2), quality.folder)
    assert again.outcome == quality.outcome
    assert again.epochs == quality.epochs and quality.epochs  # a tracker of the second run has the curves as well
    assert (quality.folder / "outcome.json").stat().st_mtime_ns == written


def test_a_change_of_anything_that_matters_is_done_anew(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def note(*args: object) -> Outcome:
        seen.append(str(args[5]))
        return Outcome("ran", "", str(args[5]))

    monkeypatch.setattr(module, "_train_and_test", note)
    usual, settings, images = cell("ce", "ordinal"), task("ordinal"), data("ordinal")
    variants = [
        (usual, settings, images),
        (replace(usual, seed=1), settings, images),
        (usual, settings.model_copy(update={"dropout": 0.1}), images),
        (usual, settings.model_copy(update={"learning_rate": {"resnet50": 2e-3}}), images),
        (usual, settings, replace(images, digest="another mask")),
    ]
    for which, how, what in variants:
        finetune(which, how, what, encoder_folder, tmp_path, silent, lambda *_: None)
    assert len(set(seen)) == len(variants) == len(seen)
    moved = {"manifest": "moved.csv", "learning_rate": {"resnet50": 1e-3}, "champion": Champion(metric="accuracy")}
    elsewhere = settings.model_copy(update=moved)
    finetune(usual, settings, images, encoder_folder, tmp_path, silent, lambda *_: None)
    finetune(usual, elsewhere, images, encoder_folder, tmp_path, silent, lambda *_: None)
    assert len(seen) == len(variants) + 1
    finetune(usual, elsewhere, images, encoder_folder, tmp_path, silent, lambda *_: None, "bfloat16")
    assert len(set(seen)) == len(variants) + 1
    assert seen[-1] not in seen[:-1]


@pytest.mark.parametrize("status", ["unavailable", "diverged"])
def test_an_encoder_that_did_not_run_passes_its_outcome_on_and_leaves_no_older_numbers(
    status: str, run: Runner, tmp_path: Path
) -> None:
    encoder, folder = tmp_path / "encoder", tmp_path / "cell"
    folder.mkdir()
    (folder / "predictions.parquet").write_text("of an earlier run")
    Outcome(status, "no weights at hand", "f").write(encoder)  # type: ignore[arg-type]
    outcome = finetune(
        cell("imagenet", "ordinal"), task("ordinal"), data("ordinal"), encoder, folder, silent, lambda *_: None
    )
    assert (outcome.status, outcome.reason) == (status, "no weights at hand")
    assert [path.name for path in folder.iterdir()] == ["outcome.json"]


def test_a_loss_that_is_not_finite_is_an_outcome(run: Runner, tmp_path: Path) -> None:
    wild = task("ordinal").model_copy(update={"learning_rate": {"resnet50": 1e30}})
    diverged = run(cell("ce", "ordinal"), wild, tmp_path)
    assert diverged.outcome.status == "diverged"
    assert "epoch 1" in diverged.outcome.reason
    assert [path.name for path in tmp_path.iterdir()] == ["outcome.json"]


@pytest.mark.parametrize(("rate", "status"), [(1e-3, "ran"), (1e30, "diverged")])
@pytest.mark.integration
def test_seconds_include_those_of_interrupted_runs_for_every_outcome(
    rate: float, status: str, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "seconds_done", lambda checkpoint, fingerprint: 1e6)
    run(cell("ce", "ordinal"), task("ordinal").model_copy(update={"learning_rate": {"resnet50": rate}}), tmp_path)
    outcome = Outcome.read(tmp_path)
    assert outcome is not None and outcome.seconds is not None
    assert outcome.status == status
    assert 1e6 < outcome.seconds < 1e6 + 300


def test_an_encoder_that_was_never_pretrained_raises_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pretrain"):
        finetune(
            cell("ce", "ordinal"), task("ordinal"), data("ordinal"), tmp_path, tmp_path / "c", silent, lambda *_: None
        )


def test_a_batch_larger_than_the_training_split_raises_a_user_error(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ordinal.*batch_size 13.*12"):
        run(cell("ce", "ordinal"), task("ordinal").model_copy(update={"batch_size": 13}), tmp_path)
    assert not (tmp_path / "outcome.json").exists()
