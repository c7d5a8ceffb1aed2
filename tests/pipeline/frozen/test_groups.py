"""Scores by machine and by source, and of sources that the fit has not seen; AUC is scikit-learn's."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.frozen import evaluate
from pipeline.frozen.evaluate import Scored, scores_of, scores_of_mean_mask
from pipeline.frozen.problem import Problem
from pipeline.frozen.questions import neighbour_scores
from pipeline.representation.features import Features
from tests.pipeline.frozen.conftest import questions, squares

COUNT, TRAIN, TARGETS = 200, 80, 3
RANDOM = np.random.default_rng(3)
TRUTH = RANDOM.integers(0, 2, (COUNT, TARGETS)).astype(np.int8)
FEATURES = Features((TRUTH + RANDOM.normal(0, 1.5, (COUNT, TARGETS))).astype(np.float32), np.empty((0, 0, 0, 0)))
SOURCES = np.array([("1", "2", "2", "3")[n // 2 % 4] for n in range(COUNT)])
"""Two images a patient: of 60 patients in validation 15 are of source 1, 30 of source 2, 15 of source 3."""


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "FRACTIONS", (1.0, 0.5))
        patch.setattr(evaluate, "_ANSWERS", {evaluate.NEIGHBOURS: neighbour_scores})
        yield


def problem(truth: np.ndarray = TRUTH, sources: np.ndarray = SOURCES) -> Problem:
    return replace(questions(truth, train=TRAIN), groups={"source": tuple(sources.tolist())})


def rows_by(group_by: str | None, rows: list[Scored]) -> dict[str | None, Scored]:
    return {row.group: row for row in rows if row.group_by == group_by and row.fraction == 1}


def mean_auc(truth: np.ndarray, scores: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(truth[:, t], scores[:, t]) for t in range(truth.shape[1])]))


def test_a_group_is_scored_by_the_fit_on_all_training_images() -> None:
    asked = np.arange(TRAIN, COUNT)
    answers = neighbour_scores(FEATURES.pooled_ND, problem(), np.arange(TRAIN), asked)
    rows = scores_of(FEATURES, problem())
    found = rows_by("source", rows)
    assert list(found) == ["2", "1", "3"]  # most patients first
    for name, row in found.items():
        own = SOURCES[asked] == name
        assert row.score.mean == pytest.approx(mean_auc(TRUTH[asked][own], answers[own]))
        assert row.score.low < row.score.mean < row.score.high and row.questions == TARGETS
        assert len(row.patients) == own.sum() and len(set(row.patients)) == own.sum() // 2
    assert {row.group for row in rows if row.fraction < 1} == {None}


def test_a_question_with_one_answer_in_a_group_does_not_count_there() -> None:
    truth = TRUTH.copy()
    truth[SOURCES == "1", 0] = 1
    truth[SOURCES == "3"] = 0
    found = rows_by("source", scores_of(FEATURES, problem(truth)))
    assert {name: row.questions for name, row in found.items()} == {"1": 2, "2": 3, "3": 0}
    asked = np.arange(TRAIN, COUNT)
    answers, own = neighbour_scores(FEATURES.pooled_ND, problem(truth), np.arange(TRAIN), asked), SOURCES[asked] == "1"
    assert found["1"].score.mean == pytest.approx(mean_auc(truth[asked][own][:, 1:], answers[own][:, 1:]))
    assert np.isnan(found["3"].score.mean)


def test_an_interval_is_wider_in_a_group_of_fewer_patients_than_in_all_images() -> None:
    rows = scores_of(FEATURES, problem())
    (whole,), group = rows_by(None, rows).values(), rows_by("source", rows)["1"]
    assert (group.score.high - group.score.low) / (whole.score.high - whole.score.low) == pytest.approx(2, rel=0.35)


def test_groups_of_fewer_than_six_patients_are_counted_together_and_not_scored() -> None:
    sources = np.where(np.arange(COUNT) < TRAIN, "1", "2").astype(object)
    sources[TRAIN : TRAIN + 12] = "6 patients"
    sources[TRAIN + 12 : TRAIN + 22] = "5 patients"
    sources[-3:] = "of the last"  # and of the patient before, the half
    found = rows_by("source", scores_of(FEATURES, problem(sources=sources)))
    assert list(found) == ["2", "6 patients", "2 others"]
    assert not np.isnan(found["6 patients"].score.mean)
    others = found["2 others"]
    assert np.isnan(others.score.mean) and others.questions is None
    assert (len(others.patients), len(set(others.patients))) == (13, 7)


@pytest.mark.parametrize("groups", [{}, {"source": ("1",) * COUNT}])
def test_images_of_one_source_or_of_unknown_ones_have_no_groups(groups: dict[str, tuple[str, ...]]) -> None:
    one = replace(problem(), groups=groups, leave_one_source_out=True)
    assert {row.group_by for row in scores_of(FEATURES, one)} == {None}


def test_a_source_that_is_left_out_is_scored_by_a_fit_on_all_others() -> None:
    rows = scores_of(FEATURES, replace(problem(), leave_one_source_out=True))
    found, seen = rows_by("source left out", rows), rows_by("source", rows)
    assert list(found) == ["2", "1", "3"]
    for name, row in found.items():
        train = np.flatnonzero(SOURCES[:TRAIN] != name)
        own = TRAIN + np.flatnonzero(SOURCES[TRAIN:] == name)
        answers = neighbour_scores(FEATURES.pooled_ND, problem(), train, own)
        assert row.score.mean == pytest.approx(mean_auc(TRUTH[own], answers)) != seen[name].score.mean
        assert row.patients == seen[name].patients


def test_a_question_that_the_other_sources_leave_open_is_not_scored() -> None:
    """Only source 2 has the first label; no other source lacks the second."""
    truth = TRUTH.copy()
    truth[SOURCES != "2", 0] = 0
    truth[SOURCES != "2", 1] = 1
    row = rows_by("source left out", scores_of(FEATURES, replace(problem(truth), leave_one_source_out=True)))["2"]
    train = np.flatnonzero(SOURCES[:TRAIN] != "2")
    own = TRAIN + np.flatnonzero(SOURCES[TRAIN:] == "2")
    answers = neighbour_scores(FEATURES.pooled_ND, problem(truth), train, own)
    assert row.questions == 1 and row.score.mean == pytest.approx(roc_auc_score(truth[own, 2], answers[:, 2]))


def test_a_source_with_nearly_all_training_images_is_not_left_out() -> None:
    sources = SOURCES.copy()
    sources[: TRAIN - 6] = "2"  # six images are left, of eight that a fit needs
    rows = scores_of(FEATURES, replace(problem(sources=sources), leave_one_source_out=True))
    assert "2" in rows_by("source", rows) and "2" not in rows_by("source left out", rows)


def test_masks_are_scored_by_group_too() -> None:
    of = squares(60)
    sources = tuple("12"[n // 2 % 2] for n in range(60))  # ten patients in validation, five of each
    rows = scores_of_mean_mask(replace(of, groups={"source": sources, "machine": ("A", "B") * 30}))
    whole, by = rows_by(None, rows)[None], rows_by("machine", rows)
    assert not rows_by("source", rows)
    assert list(by) == ["A", "B"] and np.mean([row.score.mean for row in by.values()]) == pytest.approx(
        whole.score.mean
    )
    assert by["A"].questions is None and len(by["A"].patients) == 10
