"""Mode collapse, computed from curves that were made up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation.evidence import Training, trainings_of
from pipeline.evaluation.mode_collapse import (
    COLLAPSED_BELOW,
    ByEpoch,
    ModeCollapse,
    epochs_table,
    mean_by_epoch,
    mode_collapse_table,
    mode_collapses,
)
from pipeline.pretraining.encoder_folder import replay_metrics, write_curves
from pipeline.recipe import Recipe
from pipeline.store import Experiment
from pipeline.training.outcome import Outcome

RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "pretraining": {
            "backbones": ["resnet50"],
            "seeds": [0, 1],
            "variants": {"ce_unopposed": {"method": "ce", "lambda_adv": 0}},
        },
        "downstream": {"seeds": [0, 1]},
    }
)


def training(seed: int, losses: Sequence[float], diversity: Sequence[float], encoder: str = "ce") -> Training:
    curves = {"val_loss": losses, "val_diversity": diversity, "train_saturation": [0.1 * (seed + 1), 0.5, 0.9]}
    return Training("resnet50", encoder, seed, "ran", "", curves)


def test_diversity_is_that_of_the_selected_epoch_and_its_spread_that_of_the_seeds() -> None:
    runs = [training(0, [3, 1, 2], [0.2, 0.8, 0.7]), training(1, [3, 2, 2], [0.5, 0.6, 0.9])]
    (row,) = mode_collapses(RECIPE, runs)
    assert (row.runs, row.diverged, row.collapsed, row.epochs_kept) == (2, 0, 0, "2, 2"), "the first of equals is kept"
    assert row.diversity_kept == pytest.approx(0.7)
    assert row.diversity_kept_sd == pytest.approx(np.std([0.8, 0.6], ddof=1))
    assert (row.diversity_last, row.saturation_first, row.saturation_last) == pytest.approx((0.8, 0.15, 0.9))


@pytest.mark.parametrize(
    ("diversity", "collapsed"),
    [([0.1, 0.5, 0.5], 0), ([0.5, 0.31, 0.5], 1), ([0.5, 0.5, 0.31], 1), ([0.32, 0.32, 0.32], 0), ([0, 0, 0], 1)],
)
def test_a_run_has_collapsed_at_the_selected_epoch_or_at_the_last_one(diversity: list[float], collapsed: int) -> None:
    (row,) = mode_collapses(RECIPE, [training(0, [3, 1, 2], diversity)])
    assert row.collapsed == collapsed
    assert (row.diversity_kept_sd, row.diversity_last_sd) == (None, None), "one run has no spread"


def test_the_threshold_is_what_the_best_predictor_of_a_tenth_of_the_variance_reaches() -> None:
    """Image = part explained by the context + rest; the predictor with the least error paints the first part alone."""
    random = np.random.default_rng(0)
    told, hidden = random.normal(0, 0.1**0.5, 200_000), random.normal(0, 0.9**0.5, 200_000)
    assert told.std() / (told + hidden).std() == pytest.approx(COLLAPSED_BELOW, rel=0.01)


def test_runs_that_diverged_are_counted_beside_the_others_and_methods_apart() -> None:
    lost = Training("resnet50", "ce", 1, "diverged", "nan", {})
    runs = [training(0, [1, 2, 3], [0.9] * 3), lost, training(0, [1, 2, 3], [0.1] * 3, "ce_dcm")]
    others = [Training("resnet50", "dcm", 0, "ran", "", {"val_loss": [1.0]})]
    with_tags_and_without = mode_collapses(RECIPE, [*runs, *others])
    assert [(r.encoder, r.runs, r.diverged, r.collapsed) for r in with_tags_and_without] == [
        ("ce", 1, 1, 0),
        ("ce_dcm", 1, 0, 1),
    ]
    printed = mode_collapse_table(RECIPE, with_tags_and_without).markdown()
    assert "0 of 1 (1 more diverged)" in printed and "| CE+DCM | 1 | 1 | 0.10 | 0.10 | 1 of 1 |" in printed


def test_a_context_encoder_with_only_diverged_runs_has_a_row_without_numbers() -> None:
    lost = [Training("resnet50", "ce", seed, "diverged", "nan", {}) for seed in (0, 1)]
    (row,) = mode_collapses(RECIPE, [*lost, Training("resnet50", "dcm", 0, "diverged", "nan", {})])
    assert row == ModeCollapse("resnet50", "ce", runs=0, diverged=2)
    assert mode_collapse_table(RECIPE, [row]).rows == [("ResNet-50", "CE", "0", "–", "–", "–", "– (2 diverged)")]


def test_the_epoch_is_selected_by_reconstruction_or_by_l_f_in_earlier_versions() -> None:
    curves = {"val_loss": [3.0, 1.0, 2.0], "val_mse": [0.5, 0.4, 0.3], "val_diversity": [0.1, 0.2, 0.3]}
    older = Training("resnet50", "ce", 0, "ran", "", curves)
    today = replace(older, curves=curves | {"val_score_inpainted": [0.0, 0.0, 0.0]})
    of_labels = replace(older, encoder="dcm", curves={"val_loss": [3.0, 1.0, 2.0], "val_accuracy": [0.1, 0.2, 0.3]})
    both = replace(older, encoder="ce_aux", curves=curves | {"val_label_loss": [0.0, 0.0, 0.0]})
    assert (older.selected_epoch, today.selected_epoch, of_labels.selected_epoch) == (1, 2, 1)
    assert both.selected_epoch == 2


def test_a_context_encoder_without_discriminator_has_a_diversity_and_no_saturation() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "pretraining": {"methods": ["ce_aux"]}, "downstream": {"arms": ["ce_aux"]}}
    )
    curves = {"val_mse": [0.5, 0.4], "val_label_loss": [0.1, 0.2], "val_loss": [1, 2], "val_diversity": [0.5, 0.8]}
    (row,) = mode_collapses(recipe, [Training("resnet50", "ce_aux", 0, "ran", "", curves)])
    assert (row.epochs_kept, row.diversity_kept, row.saturation_first, row.saturation_last) == ("2", 0.8, None, None)


def test_the_epoch_that_the_folder_records_is_the_selected_one_whatever_selected_it(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    folder = experiment.encoder("resnet50", "ce", 0)
    curves = [{"val_loss": 1.0}, {"val_loss": 2.0, "val_linear_auc": 0.75}, {"val_loss": 3.0, "val_linear_auc": 0.5}]
    write_curves(folder, curves)
    Outcome("ran", "", "f", 60.0, kept_epoch=2).write(folder)
    (recorded,) = trainings_of(RECIPE, experiment)
    assert recorded.selected_epoch == 1
    Outcome("ran", "", "f", 60.0).write(folder)
    (inferred,) = trainings_of(RECIPE, experiment)
    assert inferred.selected_epoch == 0


def test_the_share_that_an_earlier_version_measured_at_the_patch_has_another_name(
    tmp_path: Path,
) -> None:
    experiment = Experiment(tmp_path)
    before = {"train_adversarial_share": 0.2, "val_loss": 0.5, "val_mse": 0.4}
    today = before | {"val_score_inpainted": 0.1, "train_adversarial_share": 0.02}
    for seed, metrics in ((0, before), (1, today)):
        Outcome("ran", "", "f", 60.0).write(experiment.encoder("resnet50", "ce", seed))
        write_curves(experiment.encoder("resnet50", "ce", seed), [metrics])
    ended = trainings_of(RECIPE, experiment)
    for name, mean in (("train_adversarial_share", 0.02), ("train_adversarial_share_at_the_patch", 0.2)):
        assert mean_by_epoch(RECIPE, ended, name)["resnet50", "ce"] == ByEpoch(1, [mean]), "each mean is of one meaning"
    told: list[dict[str, float]] = []
    replay_metrics(experiment.encoder("resnet50", "ce", 0), lambda epoch, metrics: told.append(metrics))
    assert told == [{"train_adversarial_share_at_the_patch": 0.2, "val_loss": 0.5, "val_mse": 0.4}]


def test_saturation_is_averaged_over_the_seeds_epoch_by_epoch() -> None:
    ended = [training(seed, [1, 2, 3], [0.9] * 3) for seed in (0, 1, 2)]
    by_epoch = mean_by_epoch(RECIPE, ended, "train_saturation")
    assert by_epoch == {("resnet50", "ce"): ByEpoch(3, pytest.approx([0.2, 0.5, 0.9]))}
    assert "| ResNet-50 | CE | 3 | 20 % | 50 % | 90 % |" in epochs_table(RECIPE, by_epoch).markdown()


def test_a_row_counts_the_runs_that_recorded_the_metric_even_if_there_are_none() -> None:
    late = {"val_loss": [1.0], "train_adversarial_share": [0.0123]}
    ended = [
        training(0, [1, 2, 3], [0.9] * 3),
        training(0, [1], [0.9], "ce_unopposed"),
        Training("resnet50", "ce_unopposed", 1, "ran", "", late),
        Training("resnet50", "dcm", 0, "ran", "", {"val_loss": [1.0]}),
    ]
    by_epoch = mean_by_epoch(RECIPE, ended, "train_adversarial_share")
    assert by_epoch == {("resnet50", "ce"): ByEpoch(0, []), ("resnet50", "ce_unopposed"): ByEpoch(1, [0.0123])}
    grid = epochs_table(RECIPE, by_epoch, decimals=1)
    assert grid.rows == [("ResNet-50", "CE", "0", "–"), ("ResNet-50", "CE, lambda_adv 0", "1", "1.2 %")]
    assert grid.markdown().splitlines()[1] == "| --- | --- | ---: | ---: |", "numbers are right-aligned, names are not"


def test_of_many_epochs_ten_are_printed_the_first_and_the_last_among_them() -> None:
    grid = epochs_table(RECIPE, {("resnet50", "ce"): ByEpoch(1, [epoch / 200 for epoch in range(1, 201)])})
    assert len(grid.head) == 3 + 10
    assert (grid.head[3], grid.head[-1]) == ("Epoch 1", "Epoch 200")
    assert (grid.rows[0][3], grid.rows[0][-1]) == ("0 %", "100 %")


def test_beside_longer_trainings_a_shorter_one_shows_its_last_epoch_too() -> None:
    """Ten of 30 epochs, evenly spread: 1 + 29 k / 9, rounded."""
    shares = {"ce": [0.3] * 30, "ce_unopposed": [0.1] * 9 + [0.2]}
    grid = epochs_table(RECIPE, {("resnet50", encoder): ByEpoch(1, values) for encoder, values in shares.items()})
    shown = [1, 4, 7, 10, 11, 14, 17, 20, 24, 27, 30]
    assert grid.head[3:] == tuple(f"Epoch {epoch}" for epoch in shown)
    assert grid.rows[1][3:] == ("10 %", "10 %", "10 %", "20 %", *["–"] * 7)


def test_finished_trainings_are_read_with_their_curves(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    Outcome("ran", "", "f", 60.0).write(experiment.encoder("resnet50", "ce", 1))
    Outcome("diverged", "nan", "f").write(experiment.encoder("resnet50", "ce_unopposed", 0))
    write_curves(
        experiment.encoder("resnet50", "ce", 1), [{"val_loss": 0.5, "val_diversity": float(torch.tensor(0.1))}]
    )
    ran, diverged = trainings_of(RECIPE, experiment)
    assert (ran.seed, ran.seconds) == (1, 60)
    assert (ran.encoder, ran.status, ran.curves) == (
        "ce",
        "ran",
        {"val_loss": [0.5], "val_diversity": [float(np.float32(0.1))]},
    )
    assert (diverged.encoder, diverged.reason, diverged.curves) == ("ce_unopposed", "nan", {})
