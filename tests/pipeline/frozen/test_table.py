"""The table of frozen scores: what is scored, what is not scored again, and what has no row."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.errors import UserError
from pipeline.frozen import evaluate
from pipeline.frozen import table as frozen_table
from pipeline.frozen.evaluate import Scored
from pipeline.frozen.problem import Problem
from pipeline.frozen.questions import neighbour_scores
from pipeline.frozen.table import FrozenInput, score_folders, score_recipe
from pipeline.networks import encoders
from pipeline.networks.encoders import save_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.progress import silent
from pipeline.recipe import Recipe
from pipeline.representation.features import Features
from pipeline.store import Store
from pipeline.tables import FROZEN_SCORES
from pipeline.training.outcome import Outcome
from tests.pipeline.downstream.conftest import table, task
from tests.pipeline.pretraining.conftest import LABELS, TinyEncoder, make_pool

ENCODERS = {("baseline", 0), ("baseline", 1), ("ce", 1)}
"""That ran; seed 0 of ce diverged."""
METRICS = {"quality": "auc", "masks": "dice"}
SPLITS = {("archive", "val"), *((name, split) for name in METRICS for split in ("val", "test"))}
FRACTIONS = (1.0, 0.5)
SCORINGS = 3 * len(ENCODERS) + 3 + 2 + 2
"""Encoders on each problem; controls of the archive, of quality and of masks."""
COUNT = 40


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """A tiny backbone, a pool in memory, and few fits: two shares, two draws, no logistic regression."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_ResNet50", TinyEncoder)
        patch.setattr(frozen_table, "pool_with_pixels", lambda rows, store, recipe: make_pool(COUNT, 28))
        patch.setattr(evaluate, "FRACTIONS", FRACTIONS)
        patch.setattr(evaluate, "DRAWS", 2)
        patch.setattr(evaluate, "_ANSWERS", {evaluate.NEIGHBOURS: neighbour_scores})
        yield


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    sources = [{"kind": "study_groups", "groups": list(LABELS[:2])}, {"kind": "probe", "shapes": list(LABELS[2:])}]
    tasks = {"quality": task("ordinal").model_dump(), "masks": task("segmentation").model_dump()}
    return Recipe.model_validate(
        {
            "name": "small",
            "images": {"height": 32, "width": 64},
            "labels": {"sources": sources},
            "pretraining": {"backbones": ["resnet50"], "methods": ["baseline", "ce"], "seeds": [0, 1]},
            "downstream": {"arms": ["baseline", "ce"], "seeds": [0, 1], "tasks": tasks},
        }
    )


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with encoders of which nothing is scored."""
    made = Store(tmp_path_factory.mktemp("trained")).open()
    for number, (name, seed) in enumerate(sorted(ENCODERS)):
        write_encoder(made.experiment(recipe.name).encoder("resnet50", name, seed), number)
    Outcome("diverged", "the loss is nan", "").write(made.experiment(recipe.name).encoder("resnet50", "ce", 0))
    return made


@pytest.fixture(scope="module")
def first(recipe: Recipe, trained: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, pa.Table]:
    """A copy in which everything is scored, and its rows."""
    made = copied(trained, tmp_path_factory.mktemp("scored"))
    rows, lines = scored(recipe, made, found())
    assert len(lines) == SCORINGS
    return made, rows


def copied(store: Store, folder: Path) -> Store:
    return Store(Path(shutil.copytree(store.root, folder / "store")))


def write_encoder(folder: Path, draw: int) -> None:
    torch.manual_seed(draw)
    folder.mkdir(parents=True, exist_ok=True)
    save_encoder(TinyEncoder(), folder / ENCODER)
    Preprocessing("resnet50", 32, 64, mean=80.0, sd=40.0).write(folder)
    Outcome("ran", "", f"draw {draw}").write(folder)


def found(sizes: Callable[[int], int] = lambda number: 600, quality: list[int] | None = None) -> FrozenInput:
    """A pool of `COUNT` images, each in the index, and both tasks, of which one has the answers `quality`."""
    pool, instances = make_pool(COUNT, 28), [f"i{number}" for number in range(COUNT)]
    rows = {"sop_instance": instances, "image_digest": instances, "patient": [f"p{n // 2}" for n in range(COUNT)]}
    labels = {name: pool.labels_NL[:, at].to(torch.int8).numpy() for at, name in enumerate(LABELS)}
    split = ["train"] * 28 + ["val"] * (COUNT - 28)
    shuffled = np.random.default_rng(0).permutation(COUNT).tolist()  # the index has another order
    index = {"sop_instance": [instances[n] for n in shuffled], "rows": [sizes(n) for n in shuffled]}
    ordinal = table("ordinal")
    if quality:
        ordinal = ordinal.set_column(ordinal.schema.get_field_index("quality"), "quality", [quality])
    return FrozenInput(
        pa.table(rows | {"split": split} | labels),
        pa.table(index | {"columns": [800] * COUNT}),
        {"quality": ordinal, "masks": table("segmentation")},
    )


def scored(recipe: Recipe, store: Store, of: FrozenInput) -> tuple[pa.Table, list[str]]:
    """The table, and a line for each thing that was scored."""
    lines: list[str] = []
    return score_recipe(recipe, store, of, lines.append), lines


def test_every_encoder_that_ran_and_every_control_has_a_row_for_each_problem_split_and_share(
    recipe: Recipe, first: tuple[Store, pa.Table]
) -> None:
    store, rows = first
    assert rows.equals(FROZEN_SCORES.read(store.experiment(recipe.name).tables))
    columns = ("problem", "split", "features", "seed", "method", "fraction")
    of_archive = {("pixels", None), ("brightness", None), ("image size", None)}
    questions = {
        ("archive", "val"): of_archive,
        **{("quality", split): of_archive - {("image size", None)} for split in ("val", "test")},
    }
    expected = {
        *((*at, *which, "nearest neighbours") for at, controls in questions.items() for which in ENCODERS | controls),
        *(
            ("masks", split, *which, "linear masks")
            for split in ("val", "test")
            for which in ENCODERS | {("pixels", None)}
        ),
        *(("masks", split, "none", None, "mean mask") for split in ("val", "test")),
    }
    keys = list(zip(*(rows[name].to_pylist() for name in columns), strict=True))
    assert Counter(keys) == Counter((*key, fraction) for key in expected for fraction in FRACTIONS)


def test_rows_count_what_is_scored_and_name_the_metric(first: tuple[Store, pa.Table]) -> None:
    rows = first[1].to_pylist()
    counts = {(row["problem"], row["split"]): (row["images"], row["patients"], row["metric"]) for row in rows}
    tasks = {(name, split): (4, 2, metric) for name, metric in METRICS.items() for split in ("val", "test")}
    assert counts == tasks | {("archive", "val"): (12, 6, "auc")}
    assert {row["backbone"] for row in rows if row["seed"] is None} == {None}
    for row in rows:
        assert row["low"] <= row["score"] <= row["high"] and row["draws"] == (1 if row["fraction"] == 1 else 2)


def test_what_is_scored_is_not_scored_again(recipe: Recipe, first: tuple[Store, pa.Table]) -> None:
    again, lines = scored(recipe, first[0], found())
    assert lines == [] and again.equals(first[1])


@pytest.mark.parametrize("change", ["encoder", "truth", "size"])
def test_only_what_depends_on_a_change_is_scored_again(
    recipe: Recipe, first: tuple[Store, pa.Table], change: str, tmp_path: Path
) -> None:
    store, of = copied(first[0], tmp_path), found()
    if change == "encoder":
        write_encoder(store.experiment(recipe.name).encoder("resnet50", "ce", 1), 9)
    elif change == "truth":
        of = found(quality=[1, *table("ordinal")["quality"].to_pylist()[1:]])
    else:
        of = found(sizes=lambda number: 601)
    after, lines = scored(recipe, store, of)
    expected, times = {"encoder": ("ce seed 1", 3), "truth": ("quality: ", 5), "size": ("archive: ", 6)}[change]
    assert all(expected in line for line in lines) and len(lines) == times
    kept = {*first[1]["fingerprint"].to_pylist()} & {*after["fingerprint"].to_pylist()}
    assert len(kept) == SCORINGS - times and after.num_rows == first[1].num_rows


def test_a_run_that_was_stopped_keeps_what_it_has_scored(recipe: Recipe, trained: Store, tmp_path: Path) -> None:
    store, original, calls = copied(trained, tmp_path), frozen_table.scores_of, iter(range(5))

    def stopping(features: Features, problem: Problem) -> list[Scored]:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return original(features, problem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_table, "scores_of", stopping)
        with pytest.raises(KeyboardInterrupt):
            score_recipe(recipe, store, found(), silent)
    assert len(scored(recipe, store, found())[1]) == SCORINGS - 4


def test_the_size_of_an_image_is_that_of_its_own_file(
    recipe: Recipe, first: tuple[Store, pa.Table], tmp_path: Path
) -> None:
    """The first of three labels decides the size here; one size for all, as in `first`, tells nothing."""
    label = make_pool(COUNT, 28).labels_NL[:, 0].tolist()
    of = found(sizes=lambda number: 600 + 10 * int(label[number]))
    told, nothing = (size_scores(rows) for rows in (scored(recipe, copied(first[0], tmp_path), of)[0], first[1]))
    assert nothing == {0.5} and min(told) > 0.6


def size_scores(rows: pa.Table) -> set[float]:
    return {row["score"] for row in rows.to_pylist() if row["features"] == "image size" and row["fraction"] == 1}


def test_a_split_with_one_answer_has_no_score(recipe: Recipe, first: tuple[Store, pa.Table], tmp_path: Path) -> None:
    of = found(quality=[*table("ordinal")["quality"].to_pylist()[:16], 2, 2, 2, 2])
    rows = scored(recipe, copied(first[0], tmp_path), of)[0].to_pylist()
    undefined = {
        (row["split"], row["score"] is None, row["low"] is None) for row in rows if row["problem"] == "quality"
    }
    assert undefined == {("val", False, False), ("test", True, True)}


def test_folders_are_scored_under_their_own_names_and_nothing_is_written(
    recipe: Recipe, trained: Store, tmp_path: Path
) -> None:
    write_encoder(tmp_path / "mine", 3)
    of = replace(found(), tasks={})
    rows = score_folders(recipe, trained, of, [tmp_path / "mine"], silent)
    assert {(row["features"], row["seed"]) for row in rows.to_pylist() if row["backbone"]} == {("mine", None)}
    assert not FROZEN_SCORES.path(trained.experiment(recipe.name).tables).exists()


def test_without_a_finished_encoder_the_job_to_run_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no finished encoder .* run the job `pretrain`"):
        score_recipe(recipe, Store(tmp_path / "empty").open(), found(), silent)
