"""Gains of frozen encoders: differences over seeds and patients by hand, and which encoders are compared."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.evaluation.frozen_gains import comparisons, gains_section
from pipeline.recipe import Recipe
from pipeline.tables import FROZEN_SCORES

DRAWS = np.random.default_rng(0).normal(0.5, 0.1, (4, 500)).astype(np.float32)


@pytest.fixture
def with_control(recipe: Recipe) -> Recipe:
    settings = recipe.model_dump(exclude_defaults=True)
    settings["pretraining"] = {
        "backbones": ["resnet50"],
        "methods": ["baseline", "simclr", "supcon"],
        "variants": {
            "supcon_shuffled": {"method": "supcon", "labels": "shuffled"},
            "supcon_source": {"method": "supcon", "labels": "source"},
            "supcon_away_shuffled": {"method": "supcon", "labels": "shuffled", "without_source": 1},
            "supcon_hot": {"method": "supcon", "temperature": 1},
            "supcon_hot_shuffled": {"method": "supcon", "temperature": 1, "labels": "shuffled"},
        },
    }
    settings["downstream"]["arms"] = ["baseline"]
    return Recipe.model_validate(settings)


def row(features: str, draws: int, **changes: Any) -> dict[str, Any]:
    resampled = DRAWS[draws].tolist()
    of = {"problem": "quality", "split": "test", "metric": "auc", "backbone": "resnet50", "seed": 0, "fraction": 0.1}
    scored = {"method": "logistic regression", "draws": 5, "images": 9, "patients": 3, "score": float(DRAWS[draws, 0])}
    rest = {"low": 0.0, "high": 1.0, "resampled": resampled, "fingerprint": "f"}
    return {"features": features} | of | scored | rest | changes


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=FROZEN_SCORES.schema)


def test_each_encoder_is_compared_with_the_start_and_with_its_own_shuffled_control(with_control: Recipe) -> None:
    rows = table(*(row(name, 0) for name in with_control.pretraining.encoders))
    pairs = [(one.encoder, one.against) for one in comparisons(with_control, rows, "test")]
    assert pairs == [
        ("simclr", "baseline"),
        ("supcon", "baseline"),
        ("supcon", "supcon_shuffled"),
        ("supcon_shuffled", "baseline"),
        ("supcon_source", "baseline"),
        ("supcon_away_shuffled", "baseline"),
        ("supcon_hot", "baseline"),
        ("supcon_hot", "supcon_hot_shuffled"),
        ("supcon_hot_shuffled", "baseline"),
    ]


def test_a_gain_is_the_mean_over_seeds_and_its_interval_is_of_paired_resamples(with_control: Recipe) -> None:
    rows = table(
        *(row("supcon", seed, seed=seed) for seed in (0, 1)), *(row("baseline", 2 + seed, seed=seed) for seed in (0, 1))
    )
    (found,) = comparisons(with_control, rows, "test")
    paired = ((DRAWS[0] - DRAWS[2]) + (DRAWS[1] - DRAWS[3])) / 2
    gain = found.gains["quality", 0.1]
    assert gain.difference == pytest.approx(float(paired[0]), abs=1e-6)
    assert (gain.low, gain.high) == pytest.approx(tuple(np.percentile(paired, (2.5, 97.5))), abs=1e-6)
    assert found.seeds == 2


def test_resamples_without_a_score_do_not_count(with_control: Recipe) -> None:
    gap = DRAWS[0].copy()
    gap[:100] = np.nan
    (found,) = comparisons(with_control, table(row("supcon", 0, resampled=gap.tolist()), row("baseline", 1)), "test")
    expected = np.percentile((DRAWS[0] - DRAWS[1])[100:], (2.5, 97.5))
    assert (found.gains["quality", 0.1].low, found.gains["quality", 0.1].high) == pytest.approx(
        tuple(expected), abs=1e-6
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "val"},
        {"method": "nearest neighbours"},
        {"score": None},
        {"seed": 7},
        {"backbone": None, "seed": None},
        {"group_by": "machine", "group": "GE LOGIQ"},
        {"problem": "archive"},
    ],
)
def test_only_defined_scores_of_encoders_of_one_seed_compare(with_control: Recipe, changes: dict[str, Any]) -> None:
    rows = table(row("supcon", 0), row("baseline", 1, **changes))
    assert not list(comparisons(with_control, rows, "test"))
    assert gains_section(with_control, rows, "test") is None


def test_a_share_that_one_comparison_lacks_is_left_out_of_its_sentence(with_control: Recipe) -> None:
    rows = table(
        *(row(name, 0, fraction=share) for name in ("baseline", "simclr") for share in (0.1, 0.05)),
        row("supcon", 0),
        row("supcon", 0, fraction=0.05, score=None),
    )
    section = gains_section(with_control, rows, "test")
    assert section is not None
    simclr, supcon = section.points
    assert "at 5 %" in simclr and "at 10 %" in supcon and "at 5 %" not in supcon
    assert [line[1:] for line in section.table.rows][1][-1] == "–"


def test_the_section_counts_the_tasks_whose_interval_excludes_0(with_control: Recipe) -> None:
    better, worse = (DRAWS[0] + step for step in (1, -1))
    rows = table(
        *(row("baseline", 0, problem=task) for task in ("quality", "liver_kidney", "even")),
        row("supcon", 0, resampled=better.tolist(), score=float(better[0])),
        row("supcon", 0, problem="liver_kidney", resampled=worse.tolist(), score=float(worse[0])),
        row("supcon", 0, problem="even", resampled=DRAWS[0].tolist()),
    )
    section = gains_section(with_control, rows, "test")
    assert section is not None
    assert section.table.head == ("Backbone", "Difference", "Task", "10 %")
    assert section.table.rows[0] == ("ResNet-50", "SupCon − Baseline", "Quality", "+1.000 [+1.000, +1.000]")
    assert section.table.rows[1][3] == "−1.000 [−1.000, −1.000]"
    (sentence,) = section.points
    assert "1 above and 1 below of 3 at 10 %" in sentence and "one encoder" in sentence
