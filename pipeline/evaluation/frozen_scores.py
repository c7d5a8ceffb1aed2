"""Scores of frozen encoders (`FROZEN_SCORES`) as tables to read; `pipeline.frozen` computes them."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.evaluation.display_names import METRIC_WORDS, arm_label, backbone_label, percent, task_label
from pipeline.evaluation.document import Chapter, Section, TextTable
from pipeline.evaluation.evidence import Evidence, Training
from pipeline.evaluation.frozen_gains import Split, gains_section, interval
from pipeline.recipe import Recipe
from pipeline.tables import ARCHIVE, NEIGHBOURS

FROZEN = "frozen"
"""Anchor of the chapter."""
SPLITS: Mapping[Split, str] = {"val": "validation", "test": "test"}
"""Their printed forms: the first to choose by, the second to report."""
_GROUPS: Mapping[str, tuple[str, str]] = {
    "machine": ("Machine", "by machine"),
    "source": ("Source", "by source"),
    "source left out": ("Source", "by source, fitted on all other sources"),
}
"""Groups of images by `group_by`: head of their column, and words of a heading."""
_Row = dict[str, Any]


def frozen_chapters(evidence: Evidence) -> list[Chapter]:
    """The chapter with the scores of test images, and of the pool's validation images; none if nothing is scored."""
    sections = frozen_sections(evidence.recipe, evidence.frozen, "test")
    if not sections:
        return []
    missing = unscored(evidence.recipe, evidence.trainings, evidence.frozen)
    text = [_TEXT, *([f"Not scored: {'; '.join(missing)}."] if missing else [])]
    gains = gains_section(evidence.recipe, evidence.frozen, "test")
    return [Chapter(FROZEN, "Frozen encoders", text, [*([gains] if gains else []), *sections])]


def frozen_sections(recipe: Recipe, rows: pa.Table, split: Split) -> list[Section]:
    """For each problem its scores on `split`, or on validation images if it has no other: a row per encoder and method.

    A cell holds the mean over pretraining seeds and its interval; with several seeds also their standard deviation.
    Tables with a row per machine and per source follow, if there are several.
    """
    problems = groupby(rows.to_pylist(), key=lambda row: row["problem"])
    return [section for name, found in problems for section in _sections(recipe, name, list(found), split)]


def unscored(recipe: Recipe, trainings: Sequence[Training], rows: pa.Table) -> list[str]:
    """The encoders of `recipe` without a score, each with the reason."""
    settings, outcomes = recipe.pretraining, {(one.backbone, one.encoder, one.seed): one for one in trainings}
    scored = {*zip(*(rows[name].to_pylist() for name in ("backbone", "features", "seed")), strict=True)}
    found = []
    for backbone in settings.backbones:
        for encoder in settings.encoders:
            for seed in settings.seeds:
                if (backbone, encoder, seed) not in scored:
                    of_seed = f", seed {seed}" if len(settings.seeds) > 1 else ""
                    name = f"{backbone_label(backbone)} {arm_label(recipe, encoder)}{of_seed}"
                    found.append(f"{name} ({_reason(outcomes.get((backbone, encoder, seed)))})")
    return found


def _reason(training: Training | None) -> str:
    if training is None:
        return "not trained"
    return f"{training.status}: {training.reason}" if training.reason else "trained since: run the job `evaluate`"


def _sections(recipe: Recipe, problem: str, rows: Sequence[_Row], split: Split) -> list[Section]:
    shown = [row for row in rows if row["split"] == split] or [row for row in rows if row["split"] == "val"]
    every = [row for row in shown if row["group_by"] is None]
    return [_section(recipe, problem, every), *_group_sections(recipe, problem, shown)]


def _section(recipe: Recipe, problem: str, shown: Sequence[_Row]) -> Section:
    fractions = sorted({row["fraction"] for row in shown}, reverse=True)
    lines: dict[tuple[str, str | None, str], list[_Row]] = {}
    for row in sorted(shown, key=lambda row: row["method"]):  # stable: encoders, then controls
        lines.setdefault((row["method"], row["backbone"], row["features"]), []).append(row)
    body = [
        (
            backbone_label(backbone) if backbone else "control",
            _features(recipe, backbone, features),
            method,
            *(_cell([row for row in of_line if row["fraction"] == fraction]) for fraction in fractions),
        )
        for (method, backbone, features), of_line in lines.items()
    ]
    head = ("Backbone", "Features", "Method", *map(percent, fractions))
    return Section(_heading(problem, shown[0]), TextTable(head, body, numbers_from=3))


def _heading(problem: str, row: _Row) -> str:
    counts = f"{row['images']} {SPLITS[row['split']]} images of {row['patients']} patients"
    return f"{_problem_label(problem)}: {METRIC_WORDS[row['metric']]}, {counts}"


def _problem_label(problem: str) -> str:
    return "The archive's own labels" if problem == ARCHIVE else task_label(problem)


def _group_sections(recipe: Recipe, problem: str, shown: Sequence[_Row]) -> list[Section]:
    """A table for each backbone and each kind of group, of the linear method: a row per group, a column per encoder."""
    grouped = [row for row in shown if row["group_by"] in _GROUPS and row["method"] != NEIGHBOURS]
    backbones = dict.fromkeys(row["backbone"] for row in grouped if row["backbone"])
    return [
        _group_section(recipe, problem, [row for row in of_kind if row["backbone"] in (None, backbone)], backbone)
        for kind in _GROUPS
        if (of_kind := [row for row in grouped if row["group_by"] == kind])
        for backbone in backbones
    ]


def _group_section(recipe: Recipe, problem: str, rows: Sequence[_Row], backbone: str) -> Section:
    cells: dict[str, dict[str, list[_Row]]] = {}
    for row in rows:
        cells.setdefault(row["group"], {}).setdefault(_features(recipe, row["backbone"], row["features"]), []).append(
            row
        )
    columns = list(dict.fromkeys(features for of_group in cells.values() for features in of_group))
    questions = rows[0]["metric"] == "auc"
    body = []
    for group, of_group in cells.items():
        one = next(iter(of_group.values()))[0]
        asked = "–" if one["questions"] is None else str(one["questions"])
        counts = [str(one["images"]), str(one["patients"]), *([asked] if questions else [])]
        body.append((group, *counts, *(_cell(of_group.get(features, [])) for features in columns)))
    what, by = _GROUPS[rows[0]["group_by"]]
    head = (what, "Images", "Patients", *(["Questions"] if questions else []), *columns)
    images = f"{METRIC_WORDS[rows[0]['metric']]}, {SPLITS[rows[0]['split']]} images"
    heading = f"{_problem_label(problem)} {by}: {images}, {backbone_label(backbone)}"
    return Section(heading, TextTable(head, body, numbers_from=1))


def _features(recipe: Recipe, backbone: str | None, features: str) -> str:
    """The printed name of an encoder of the recipe; others, and controls, are called by their own."""
    return arm_label(recipe, features) if backbone and features in recipe.pretraining.encoders else features


def _cell(seeds: Sequence[_Row]) -> str:
    """The mean over `seeds` with its interval, "–" if it is undefined for one of them."""
    scores = [row["score"] for row in seeds]
    if not seeds or None in scores:
        return "–"
    low, high = interval([row["resampled"] for row in seeds])
    spread = f" (seeds {np.std(scores, ddof=1):.3f})" if len(scores) > 1 else ""
    return f"{np.mean(scores):.3f} [{low:.3f}, {high:.3f}]{spread}"


_TEXT = (
    "Nearest neighbours, a logistic regression or a linear layer are fitted on the features of an encoder that stays "
    "as it is, on a share of the training images (below 100 %: mean over several draws). Features that do not score "
    "above the controls and above the random initialization (Baseline) have learned nothing that the problem needs. "
    "The 95 % intervals are over the patients that are scored, not over pretrainings. By machine and by source: the "
    "linear fit on all training images. A source of the archive is a first-level folder, numbered by its patients (1 "
    "has the most). Questions are those with both answers in the row; groups of few patients have no score."
)
