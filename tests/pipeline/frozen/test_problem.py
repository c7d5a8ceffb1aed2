"""The problems: a task's questions, the archive's labels, fractions."""

from dataclasses import replace

import numpy as np

from pipeline.downstream.task_images import training_subset
from pipeline.frozen import evaluate
from pipeline.frozen.evaluate import FRACTIONS, scores_of, scores_of_mean_mask
from pipeline.frozen.problem import problem_of_archive, problem_of_task
from pipeline.representation.features import pixel_features
from tests.pipeline.downstream.conftest import data, task
from tests.pipeline.frozen.conftest import questions, squares
from tests.pipeline.pretraining.conftest import make_pool


def test_an_ordinal_task_asks_for_each_class_from_the_second_on():
    images = data("ordinal")
    problem = problem_of_task("quality", task("ordinal"), images)
    truth = images.truth.numpy()
    assert problem.targets_NT.T.tolist() == [(truth >= rank).astype(int).tolist() for rank in range(1, truth.max() + 1)]
    assert not problem.is_segmentation and len(problem.names) == problem.targets_NT.shape[1]


def test_fractions_are_those_of_fine_tuning():
    images = data("segmentation")
    problem = problem_of_task("mask", task("segmentation"), images)
    for share in (1.0, 0.5):
        assert problem.fraction(share, 3, 4).tolist() == training_subset(images, "mask", share, 3, 4).tolist()


def test_the_archive_asks_for_labels_that_both_sides_have_and_lack():
    pool = make_pool()
    problem = problem_of_archive(pool)
    side = {"train": pool.train.numpy(), "val": pool.val.numpy()}
    known, labels = pool.known_NL.numpy(), pool.labels_NL.numpy()
    kept = [
        name
        for column, name in enumerate(pool.label_names)
        if all({0.0, 1.0} <= set(labels[at, column][known[at, column]].tolist()) for at in side.values())
    ]
    assert kept and list(problem.names) == kept
    assert not {problem.patients[p] for p in problem.train} & {problem.patients[p] for p in problem.evaluated}


def test_one_fit_scores_every_split_as_one_of_its_own_would(monkeypatch):
    monkeypatch.setattr(evaluate, "FRACTIONS", (1.0,))
    problem = questions(np.random.default_rng(4).integers(0, 2, (160, 1)).astype(np.int8))
    sides = {"val": np.arange(80, 110), "test": np.arange(110, 160)}
    features = replace(pixel_features(problem.images_NHW, False), pooled_ND=FEATURES)
    rows = scores_of(features, replace(problem, splits=sides))
    assert {row.split for row in rows} == {"val", "test"} and len(rows) == 2 * 2
    for split, positions in sides.items():
        alone = scores_of(features, replace(problem, splits={split: positions}))
        expected = [(row.method, row.score) for row in alone]
        found = [(row.method, row.score) for row in rows if row.split == split]
        assert found == expected


FEATURES = np.random.default_rng(5).normal(size=(160, 6)).astype(np.float32)


def test_each_fraction_has_a_score_between_its_bounds():
    for problem, methods in ((squares(), 1), (questions(np.tile([[0], [1]], (80, 1)).astype(np.int8)), 2)):
        rows = scores_of(pixel_features(problem.images_NHW, problem.is_segmentation), problem)
        assert [row.fraction for row in rows] == [*FRACTIONS] * methods
        assert all(row.score.low <= row.score.mean <= row.score.high for row in rows)
        assert [row.draws for row in rows[:4]] == [1, 5, 5, 5]
    assert {row.method for row in scores_of_mean_mask(squares())} == {"mean mask"}
