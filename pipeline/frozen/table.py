"""The table `frozen_scores` of a recipe: what is scored already, from equal input and code, is not scored again."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.code_versions import FROZEN
from pipeline.cohort.label_report import machine_of
from pipeline.downstream.task_images import TaskImages, task_images
from pipeline.errors import UserError
from pipeline.files import digest, read_table
from pipeline.frozen.evaluate import Scored, scores_of, scores_of_mean_mask
from pipeline.frozen.groups import MACHINE, NOT_STATED, SOURCE
from pipeline.frozen.onnx_encoder import onnx_scores
from pipeline.frozen.problem import Groups, Problem, problem_of_archive, problem_of_task
from pipeline.methods.external import ExternalEncoder, ExternalSettings
from pipeline.mirrored import read_if_intact
from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing, encoder_digest
from pipeline.pretraining.plan import PlannedEncoder, finished_encoders, planned_encoders
from pipeline.pretraining.pool import pool_with_pixels
from pipeline.pretraining.top_folders import top_folders
from pipeline.progress import Log
from pipeline.recipe import Recipe
from pipeline.recipe.downstream import Task
from pipeline.representation.features import brightness_features, encoder_features, pixel_features, size_features
from pipeline.source_numbers import source_numbers
from pipeline.store import Store
from pipeline.tables import ARCHIVE, FROZEN_SCORES, image_digest, label_digest

_SCHEMA = FROZEN_SCORES.schema


@dataclass(frozen=True)
class FrozenInput:
    """Tables that hold images and truth: `pretraining_pool`, `dicom_index`, and those of the tasks by name."""

    pool: pa.Table
    index: pa.Table
    tasks: Mapping[str, pa.Table]


@dataclass(frozen=True)
class _Question:
    """A problem, loaded only if something is scored on it; `digest` is that of its images and truth."""

    name: str
    digest: str
    is_segmentation: bool
    load: Callable[[], Problem]

    @property
    def identity(self) -> tuple[str, str]:
        """Everything of it on which scores depend."""
        return self.name, self.digest


@dataclass(frozen=True)
class _Source:
    """A source of features, an encoder or a control; `digest` is that of the encoder."""

    name: str
    score: Callable[[Problem], list[Scored]]
    digest: str = ""
    backbone: str | None = None
    seed: int | None = None

    @property
    def identity(self) -> tuple[str, str, str | None, int | None]:
        """Everything of it on which rows depend."""
        return self.name, self.digest, self.backbone, self.seed

    def __str__(self) -> str:
        seed = "" if self.seed is None else f"seed {self.seed}"
        return " ".join(filter(None, (self.backbone, self.name, seed)))


def score_recipe(recipe: Recipe, store: Store, found: FrozenInput, log: Log) -> pa.Table:
    """Score every finished encoder of `recipe` and the controls; writes the table, after each of them, and returns it.

    Raises `UserError` if no encoder is finished.
    """
    tables = store.experiment(recipe.name).tables
    rows = _scores(recipe, store, found, _finished(recipe, store), log, lambda rows: FROZEN_SCORES.write(tables, rows))
    FROZEN_SCORES.write(tables, rows)
    return rows


def score_folders(recipe: Recipe, store: Store, found: FrozenInput, folders: Sequence[Path], log: Log) -> pa.Table:
    """The rows of the encoders in `folders`, called by the folder's name, and of the controls; writes nothing.

    Raises `UserError` if a folder holds no encoder.
    """
    return _scores(recipe, store, found, [_encoder(folder, folder.name) for folder in folders], log, lambda rows: None)


def encoder_scores(folder: Path, problem: Problem) -> list[Scored]:
    """The scores of the encoder in `folder` on `problem`."""
    how = Preprocessing.read(folder)
    encoder = load_encoder(how.backbone, folder / ENCODER)
    features = encoder_features(encoder, how.normalization, problem.images_NHW, problem.is_segmentation)
    return scores_of(features, problem)


def _scores(
    recipe: Recipe,
    earlier: Store,
    found: FrozenInput,
    encoders: Sequence[_Source],
    log: Log,
    save: Callable[[pa.Table], None],
) -> pa.Table:
    """The rows of `encoders` and controls on every problem; `save` gets those so far whenever there are more."""
    last = read_if_intact(FROZEN_SCORES.path(earlier.experiment(recipe.name).tables), read_table)
    last = _SCHEMA.empty_table() if last is None or last.schema != _SCHEMA else last
    left_out = recipe.evaluation.leave_one_source_out
    questions = list(_questions(recipe, earlier, found, log))
    plan = [(question, source) for question in questions for source in (*encoders, *_controls(question))]
    marks = [digest(FROZEN, question.identity, source.identity, left_out) for question, source in plan]
    rows = [last.filter(pc.field("fingerprint") == mark) for mark in marks]
    load = lru_cache(maxsize=1)(  # one problem's images in memory
        lambda question: replace(question.load(), leave_one_source_out=left_out)
    )
    for at, ((question, source), mark) in enumerate(zip(plan, marks, strict=True)):
        if not rows[at].num_rows:
            began = time.monotonic()
            rows[at] = _rows(load(question), source, mark)
            log(f"{question.name}: {source} scored in {time.monotonic() - began:.1f} s.")
            save(pa.concat_tables(rows))
    return pa.concat_tables([_SCHEMA.empty_table(), *rows])


def _rows(problem: Problem, source: _Source, mark: str) -> pa.Table:
    """The scores of `source`; none if no question has both answers or a split has no image."""
    if not (problem.names and len(problem.train) and len(problem.evaluated)):
        return _SCHEMA.empty_table()
    rows = [_row(problem, source, one) | {"fingerprint": mark} for one in source.score(problem)]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _row(problem: Problem, source: _Source, scored: Scored) -> dict[str, Any]:
    score = scored.score
    return {
        "problem": problem.name,
        "split": scored.split,
        "metric": "dice" if problem.is_segmentation else "auc",
        "features": source.name,
        "backbone": source.backbone,
        "seed": source.seed,
        "method": scored.method,
        "fraction": scored.fraction,
        "draws": scored.draws,
        "group_by": scored.group_by,
        "group": scored.group,
        "images": len(scored.patients),
        "patients": len(set(scored.patients)),
        "questions": scored.questions,
        "score": _or_none(score.mean),
        "low": _or_none(score.low),
        "high": _or_none(score.high),
        "resampled": score.resampled,
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _finished(recipe: Recipe, store: Store) -> list[_Source]:
    finished = [one for one in finished_encoders(recipe, store) if _onnx_of(one) is None]
    planned = planned_encoders(recipe, store.experiment(recipe.name))
    return [
        *(_encoder(one.folder, one.encoder, one.settings.seed) for one in finished),
        *(_onnx_encoder(one, named) for one in planned if (named := _onnx_of(one)) is not None),
    ]


def _onnx_of(one: PlannedEncoder) -> ExternalEncoder | None:
    """The ONNX file that the encoder is; None if it is none, or does not exist."""
    named = one.settings.external.get(one.backbone) if isinstance(one.settings, ExternalSettings) else None
    return named if named is not None and named.is_onnx and Path(named.weights).is_file() else None


def _onnx_encoder(one: PlannedEncoder, named: ExternalEncoder) -> _Source:
    content = digest(one.settings.decisive(one.backbone))
    return _Source(one.encoder, partial(onnx_scores, named), content, one.backbone, one.settings.seed)


def _encoder(folder: Path, name: str, seed: int | None = None) -> _Source:
    backbone = Preprocessing.read(folder).backbone
    return _Source(name, partial(encoder_scores, folder), encoder_digest(folder), backbone, seed)


def _controls(question: _Question) -> list[_Source]:
    pixels = _Source("pixels", lambda of: scores_of(pixel_features(of.images_NHW, of.is_segmentation), of))
    if question.is_segmentation:
        return [pixels, _Source("none", scores_of_mean_mask)]
    brightness = _Source("brightness", lambda of: scores_of(brightness_features(of.images_NHW), of))
    size = _Source("image size", lambda of: scores_of(size_features(of.sizes), of))
    return [pixels, brightness, size] if question.name == ARCHIVE else [pixels, brightness]


def _questions(recipe: Recipe, store: Store, found: FrozenInput, log: Log) -> Iterator[_Question]:
    """The archive's own labels, then the tasks."""
    pool, sizes, groups = found.pool, _sizes(found.pool, found.index), _groups(recipe, store, found, log)
    content = digest(image_digest(pool), label_digest(pool), pool["patient"].to_pylist(), sizes, groups)

    def archive() -> Problem:
        return problem_of_archive(pool_with_pixels(pool, store, recipe), sizes, groups)

    yield _Question(ARCHIVE, content, False, archive)
    for name, rows in found.tasks.items():
        task = recipe.downstream.tasks[name]
        read = partial(task_images, rows, task, recipe.images)
        named = {SOURCE: tuple(rows["source"].to_pylist())} if "source" in rows.column_names else {}
        content = digest(task.kind, task.classes, read().digest, named)
        load = partial(_problem_of, name, task, read, named)
        yield _Question(name, content, task.kind == "segmentation", load)


def _problem_of(name: str, task: Task, read: Callable[[], TaskImages], groups: Groups) -> Problem:
    return problem_of_task(name, task, read(), groups)


def _groups(recipe: Recipe, store: Store, found: FrozenInput, log: Log) -> Groups:
    """Machine and source of each image of the pool; without sources if the store does not know them.

    Raises `UserError` if the recipe leaves them out in turn.
    """
    instances, patients = (found.pool[name].to_pylist() for name in ("sop_instance", "patient"))
    positions = pc.index_in(found.pool["sop_instance"], value_set=found.index["sop_instance"])
    headers = zip(*(found.index[name].take(positions).to_pylist() for name in ("manufacturer", "model")), strict=True)
    groups = {MACHINE: tuple(machine_of(*header) or NOT_STATED for header in headers)}
    try:
        numbers = source_numbers(top_folders(store.private, instances), patients)
    except UserError as error:
        if recipe.evaluation.leave_one_source_out:
            raise
        log(f"Not scored by source: {error}")
        return groups
    return groups | {SOURCE: tuple(map(str, numbers))}


def _sizes(pool: pa.Table, index: pa.Table) -> list[tuple[int, int]]:
    """Rows and columns of the frame behind each image of the pool; zeros if the index has lost its file."""
    positions = pc.index_in(pool["sop_instance"], value_set=index["sop_instance"])
    columns = (index[name].take(positions).fill_null(0).to_pylist() for name in ("rows", "columns"))
    return list(zip(*columns, strict=True))
