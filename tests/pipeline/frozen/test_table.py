"""The table of frozen scores: what is scored, what is not scored again, and what has no row."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from onnx import helper

from pipeline.errors import UserError
from pipeline.evaluation import patient_groups as group_rules
from pipeline.files import write_table
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
from tests.pipeline.frozen.test_onnx_encoder import mean_of_channels, model
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
    write_scan(made)
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


def write_scan(store: Store) -> None:
    """The private list of files: even images are of the folder Berta, odd ones of Anna, but those of one patient."""
    folders = [b"Berta" if number % 2 == 0 or number >= COUNT - 2 else b"Anna" for number in range(COUNT)]
    paths = [folder + b"/%d.dcm" % number for number, folder in enumerate(folders)]
    columns = {"path": pa.array(paths, pa.binary()), "container": pa.nulls(COUNT, pa.binary())}
    names = {"sop_instance": [f"i{number}" for number in range(COUNT)], "reason": pa.nulls(COUNT, pa.string())}
    (store.private).mkdir(exist_ok=True)
    write_table(store.private / "scan.parquet", pa.table(columns | names | {"deleted": [False] * COUNT}))


def found(sizes: Callable[[int], int] = lambda number: 600, quality: list[int] | None = None) -> FrozenInput:
    """A pool of `COUNT` images, each in the index, and both tasks, of which one has the answers `quality`."""
    pool, instances = make_pool(COUNT, 28), [f"i{number}" for number in range(COUNT)]
    rows = {"sop_instance": instances, "image_digest": instances, "patient": [f"p{n // 2}" for n in range(COUNT)]}
    labels = {name: pool.labels_NL[:, at].to(torch.int8).numpy() for at, name in enumerate(LABELS)}
    split = ["train"] * 28 + ["val"] * (COUNT - 28)
    shuffled = np.random.default_rng(0).permutation(COUNT).tolist()  # the index has another order
    index = {"sop_instance": [instances[n] for n in shuffled], "rows": [sizes(n) for n in shuffled]}
    machines = {
        "manufacturer": ["ACME" if n % 3 else None for n in shuffled],
        "model": ["X" if n % 3 else None for n in shuffled],
    }
    ordinal = table("ordinal")
    if quality:
        ordinal = ordinal.set_column(ordinal.schema.get_field_index("quality"), "quality", [quality])
    return FrozenInput(
        pa.table(rows | {"split": split} | labels),
        pa.table(index | {"columns": [800] * COUNT} | machines),
        {"quality": ordinal, "masks": table("segmentation")},
    )


def scored(recipe: Recipe, store: Store, of: FrozenInput) -> tuple[pa.Table, list[str]]:
    """The table, and a line for each thing that was scored."""
    lines: list[str] = []
    return score_recipe(recipe, store, of, lines.append), lines


def content(rows: pa.Table) -> str:
    """The rows as text, in which nan equals nan."""
    return str(rows.to_pylist())


def test_every_encoder_that_ran_and_every_control_has_a_row_for_each_problem_split_and_share(
    recipe: Recipe, first: tuple[Store, pa.Table]
) -> None:
    store, rows = first
    assert content(rows) == content(FROZEN_SCORES.read(store.experiment(recipe.name).tables))
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
    of_all_images = rows.filter(pc.is_null(rows["group"]))
    keys = list(zip(*(of_all_images[name].to_pylist() for name in columns), strict=True))
    assert Counter(keys) == Counter((*key, fraction) for key in expected for fraction in FRACTIONS)


def test_rows_count_what_is_scored_and_name_the_metric(first: tuple[Store, pa.Table]) -> None:
    rows = [row for row in first[1].to_pylist() if row["group"] is None]
    counts = {(row["problem"], row["split"]): (row["images"], row["patients"], row["metric"]) for row in rows}
    tasks = {(name, split): (4, 2, metric) for name, metric in METRICS.items() for split in ("val", "test")}
    assert counts == tasks | {("archive", "val"): (12, 6, "auc")}
    assert {row["backbone"] for row in rows if row["seed"] is None} == {None}
    for row in rows:
        assert row["low"] <= row["score"] <= row["high"] and row["draws"] == (1 if row["fraction"] == 1 else 2)


def test_what_is_scored_is_not_scored_again(recipe: Recipe, first: tuple[Store, pa.Table]) -> None:
    again, lines = scored(recipe, first[0], found())
    assert lines == [] and content(again) == content(first[1])


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
    of_all = [row for row in rows.to_pylist() if row["group"] is None and row["fraction"] == 1]
    return {row["score"] for row in of_all if row["features"] == "image size"}


def groups(rows: pa.Table, problem: str = "archive") -> set[tuple[str, str, int, int, bool]]:
    """Of the groups of a problem: by what, name, images, patients, whether they are scored."""
    return {
        (row["group_by"], row["group"], row["images"], row["patients"], row["score"] is not None)
        for row in rows.to_pylist()
        if row["problem"] == problem and row["group"] is not None
    }


def test_the_archive_is_scored_by_machine_and_by_source_and_no_folder_is_named(first: tuple[Store, pa.Table]) -> None:
    """Of 12 validation images a third has no machine; Anna has images of all patients but one, so Berta is 1."""
    assert groups(first[1]) == {
        ("machine", "ACME X", 8, 6, True),
        ("machine", "1 other", 4, 4, False),
        ("source", "1", 7, 6, True),
        ("source", "1 other", 5, 5, False),
    }
    assert groups(first[1], "quality") == groups(first[1], "masks") == set()
    assert not any(name in str(first[1].to_pydict()) for name in ("Anna", "Berta"))


def test_a_task_is_scored_by_the_sources_that_its_manifest_states(
    recipe: Recipe, first: tuple[Store, pa.Table], tmp_path: Path
) -> None:
    of = found()
    sources = ["north", "south"] * 10
    stated = {**of.tasks, "quality": of.tasks["quality"].append_column("source", [sources])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_rules, "FEWEST_PATIENTS", 2)
        rows, lines = scored(recipe, copied(first[0], tmp_path), replace(of, tasks=stated))
    assert groups(rows, "quality") == {("source", name, 2, 2, True) for name in ("north", "south")}
    assert len(lines) == 5 and all(line.startswith("quality: ") for line in lines)


def test_sources_are_left_out_in_turn_if_the_recipe_says_so(
    recipe: Recipe, first: tuple[Store, pa.Table], tmp_path: Path
) -> None:
    evaluation = recipe.evaluation.model_copy(update={"leave_one_source_out": True})
    rows, lines = scored(recipe.model_copy(update={"evaluation": evaluation}), copied(first[0], tmp_path), found())
    assert len(lines) == SCORINGS
    assert groups(rows) == groups(first[1]) | {("source left out", "1", 7, 6, True)}


def test_a_store_that_does_not_know_its_sources_is_scored_without_them(
    recipe: Recipe, first: tuple[Store, pa.Table], tmp_path: Path
) -> None:
    store = copied(first[0], tmp_path)
    (store.private / "scan.parquet").unlink()
    rows, lines = scored(recipe, store, found())
    assert {by for by, *_ in groups(rows)} == {"machine"}
    assert [line for line in lines if "scan.parquet does not exist" in line] == lines[:1]
    evaluation = recipe.evaluation.model_copy(update={"leave_one_source_out": True})
    with pytest.raises(UserError, match=r"scan\.parquet does not exist"):
        scored(recipe.model_copy(update={"evaluation": evaluation}), store, found())


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


def test_an_onnx_file_is_scored_in_place_of_a_trained_encoder_until_it_changes(
    recipe: Recipe, first: tuple[Store, pa.Table], tmp_path: Path
) -> None:
    path = mean_of_channels(tmp_path / "usfm.onnx", shape=("n", 1, 32, 64))
    named = {"resnet50": {"weights": str(path), "mean": 80, "sd": 40}}
    settings = recipe.model_dump()
    del settings["evaluation"]["comparisons"]
    settings["pretraining"]["variants"] = {"usfm": {"method": "external", "external": named}}
    external, store, of = Recipe.model_validate(settings), copied(first[0], tmp_path), replace(found(), tasks={})
    rows, lines = scored(external, store, of)
    assert len(lines) == 2 and all("usfm seed" in line for line in lines)
    assert {row["seed"] for row in rows.to_pylist() if row["features"] == "usfm"} == {0, 1}
    assert scored(external, store, of)[1] == []
    model(path, [helper.make_node("ReduceMax", ["x"], ["y"], axes=[2, 3], keepdims=0)])
    assert len(scored(external, store, of)[1]) == 2
    path.unlink()
    assert "usfm" not in scored(external, store, of)[0]["features"].to_pylist()


def test_without_a_finished_encoder_the_job_to_run_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no finished encoder .* run the job `pretrain`"):
        score_recipe(recipe, Store(tmp_path / "empty").open(), found(), silent)
