"""Fine-tuning a cell: what is trained, what is kept, what is written, and when nothing is done."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import pipeline.downstream.finetune as module
from pipeline.downstream.finetune import FineTuning, finetune
from pipeline.downstream.model_folder import describe
from pipeline.downstream.ordinal import encode
from pipeline.downstream.predictions import PREDICTIONS, Cell, unpack_mask
from pipeline.downstream.predictor import Predictor
from pipeline.errors import UserError
from pipeline.files import digest, read_table
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.progress import silent
from pipeline.recipe import Arm, Champion, Task
from pipeline.training.outcome import Outcome
from pipeline.training.tensors import read_tensors
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
    """The training as it was set up, with the weights that were kept."""
    again = FineTuning(cell(arm, kind, seed), task(kind), data(kind), encoder_folder)
    again.network.load_state_dict(read_tensors(run.folder / "model.safetensors"))
    return again


def test_a_cell_that_ran_leaves_its_files_and_tells_of_every_epoch(quality: Run) -> None:
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
    """Scores are those of the network that was kept, without augmentation."""
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


def test_a_model_says_what_its_training_images_were_like(quality: Run) -> None:
    said = Predictor(quality.folder).description
    assert (said.task, said.arm, said.kind, said.classes) == (
        "ordinal",
        "ce",
        "ordinal",
        ("background", "bright", "dark"),
    )
    assert (said.height, said.width, said.mean, said.sd) == (32, 64, 80.0, 40.0)
    assert (said.cropped_by, said.modalities) == (("detected",), ("US",))


def test_what_a_model_says_of_its_images_is_of_those_it_was_trained_on() -> None:
    images = data("ordinal")
    mixed = replace(
        images, cropped_by=("regions",) * 12 + ("whole",) * 8, modalities=("US", None, "CT") + (None,) * 9 + ("MR",) * 8
    )
    read = Preprocessing("resnet50", 32, 64, mean=80.0, sd=40.0)
    said = describe(cell("ce", "ordinal"), task("ordinal"), read, mixed, mixed.train)
    assert (said.cropped_by, said.modalities) == (("regions",), ("CT", "US"))
    assert describe(cell("ce", "ordinal"), task("ordinal"), read, mixed, mixed.train[3:]).modalities == ("US",)


def test_a_frozen_encoder_keeps_its_parameters_and_its_batch_norm_statistics_bit_for_bit(
    frozen: Run, encoder_folder: Path
) -> None:
    before = read_tensors(encoder_folder / "encoder.safetensors")
    after = read_tensors(frozen.folder / "model.safetensors")
    assert any("running_var" in name for name in before)
    assert all(torch.equal(after[f"encoder.backbone.{name}"], tensor) for name, tensor in before.items())


def test_an_encoder_that_is_not_frozen_learns(quality: Run, encoder_folder: Path) -> None:
    before = read_tensors(encoder_folder / "encoder.safetensors")
    after = read_tensors(quality.folder / "model.safetensors")
    same = [name for name in before if torch.equal(after[f"encoder.backbone.{name}"], before[name])]
    assert not same


def test_the_same_seed_gives_the_same_predictions(quality: Run, run: Runner, tmp_path: Path) -> None:
    torch.rand(5)  # what was drawn before must not matter
    again = run(cell("ce", "ordinal"), task("ordinal", epochs=2), tmp_path)
    assert again.predictions.equals(quality.predictions)


def test_every_arm_sees_the_same_images_and_another_seed_others(encoder_folder: Path) -> None:
    def batches(arm: Arm, seed: int, epoch: int) -> torch.Tensor:
        tuned = FineTuning(cell(arm, "segmentation", seed), task("segmentation"), data("segmentation"), encoder_folder)
        return torch.cat([torch.cat([x[:, 0], masks]) for x, masks in tuned._training_batches(epoch)])

    first = batches("ce", 0, 1)
    assert torch.equal(first, batches("ce_dcm_frozen", 0, 1))
    assert not torch.equal(first, batches("ce", 1, 1))
    assert not torch.equal(first, batches("ce", 0, 2))


def test_masks_move_with_their_images(encoder_folder: Path) -> None:
    tuned = FineTuning(cell("ce", "segmentation"), task("segmentation"), data("segmentation"), encoder_folder)
    for x_N1HW, masks_NHW in tuned._training_batches(1):
        grey_NHW = x_N1HW[:, 0] * 40 + 80
        assert (grey_NHW[masks_NHW == 2] < 60).all()  # the dark ellipse is dark: 80 ± 10 times 0.3
        assert (grey_NHW[masks_NHW == 1] > 50).all()


def test_nothing_is_done_where_the_same_cell_ran_before(quality: Run, run: Runner) -> None:
    written = (quality.folder / "outcome.json").stat().st_mtime_ns
    again = run(cell("ce", "ordinal"), task("ordinal", epochs=2), quality.folder)
    assert again.outcome == quality.outcome
    assert again.epochs == []
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


def test_an_encoder_that_was_never_pretrained_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pretrain"):
        finetune(
            cell("ce", "ordinal"), task("ordinal"), data("ordinal"), tmp_path, tmp_path / "c", silent, lambda *_: None
        )


def test_a_batch_larger_than_the_training_split_is_said_so(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ordinal.*batch_size 13.*12 training images"):
        run(cell("ce", "ordinal"), task("ordinal").model_copy(update={"batch_size": 13}), tmp_path)
    assert not (tmp_path / "outcome.json").exists()
