"""What pretraining gained over the random initialization, and what the tags gained over shuffled ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.evaluation.display_names import backbone_label, pair_label, percent, signed, task_label
from pipeline.evaluation.document import Section, TextTable
from pipeline.methods.baseline import BASELINE
from pipeline.recipe import Recipe
from pipeline.tables import ARCHIVE, LOGISTIC, MASKS

_START = BASELINE.name

Split = Literal["val", "test"]
_EDGES = (2.5, 97.5)  # percent
_KEY = ("problem", "backbone", "features", "fraction")


@dataclass(frozen=True)
class Gain:
    """The mean over seeds of a difference of scores, with its 95 % interval over the patients that are scored.

    Both encoders of a seed are scored on the same patients, resampled alike.
    """

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{signed(self.difference)} [{signed(self.low)}, {signed(self.high)}]"


@dataclass(frozen=True)
class Comparison:
    """An encoder against its control: the random initialization, or the same training with shuffled labels.

    `gains` are those by task and share of the training images; `seeds` are the encoders behind each.
    """

    backbone: str
    encoder: str
    against: str
    gains: dict[tuple[str, float], Gain]
    seeds: int


def gains_section(recipe: Recipe, rows: pa.Table, split: Split) -> Section | None:
    """A row per comparison and task, a column per share, and a sentence per comparison; None if nothing compares."""
    found = list(comparisons(recipe, rows, split))
    if not found:
        return None
    shares = sorted({share for one in found for _, share in one.gains}, reverse=True)
    body = [
        (
            backbone_label(one.backbone),
            pair_label(recipe, one.encoder, one.against),
            task_label(task),
            *(str(one.gains[task, share]) if (task, share) in one.gains else "–" for share in shares),
        )
        for one in found
        for task in dict.fromkeys(task for task, _ in one.gains)
    ]
    head = ("Backbone", "Difference", "Task", *map(percent, shares))
    sentences = [_sentence(recipe, one, shares) for one in found]
    return Section("What was gained", TextTable(head, body, numbers_from=3), [_TEXT], sentences)


def comparisons(recipe: Recipe, rows: pa.Table, split: Split) -> Iterator[Comparison]:
    """Every trained encoder against the random initialization, and against its control with shuffled labels."""
    settings = recipe.pretraining
    scores = _scores(rows, split)
    for backbone in settings.backbones:
        for encoder in settings.encoders:
            if settings.method_of(encoder).trains:
                for against in (_START, *_shuffled(recipe, encoder)):
                    compared = Comparison(backbone, encoder, against, *_gains(scores, backbone, encoder, against))
                    if compared.gains:
                        yield compared


def _shuffled(recipe: Recipe, encoder: str) -> list[str]:
    """The variants that are trained as `encoder` and on the same images, on shuffled labels."""
    settings = recipe.pretraining
    if settings.labels_of(encoder) != "own":
        return []
    method, seed = settings.method_of(encoder), settings.seeds[0]
    return [
        name
        for name in settings.variants
        if settings.labels_of(name) == "shuffled"
        and settings.method_of(name) == method
        and settings.settings_of(name, seed) == settings.settings_of(encoder, seed)
        and settings.left_out_of(name) == settings.left_out_of(encoder)
    ]


_Scores = dict[tuple[Any, ...], dict[int, dict[str, Any]]]


def _scores(rows: pa.Table, split: Split) -> _Scores:
    """The rows of encoders on tasks, by what is scored, then by seed; one method for each kind of task."""
    found: _Scores = {}
    for row in rows.to_pylist():
        of_a_task = row["problem"] != ARCHIVE and row["split"] == split and row["group_by"] is None
        if of_a_task and row["backbone"] and row["method"] in (LOGISTIC, MASKS):
            found.setdefault(tuple(row[name] for name in _KEY), {})[row["seed"]] = row
    return found


def _gains(scores: _Scores, backbone: str, encoder: str, against: str) -> tuple[dict[tuple[str, float], Gain], int]:
    gains, most = {}, 0
    for (task, its_backbone, features, share), seeds in scores.items():
        others = scores.get((task, backbone, against, share), {})
        pairs = [(seeds[seed], others[seed]) for seed in seeds if seed in others]
        if (its_backbone, features) == (backbone, encoder) and pairs and _defined(pairs):
            gains[task, share], most = _gain(pairs), max(most, len(pairs))
    return gains, most


def _defined(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> bool:
    return all(row["score"] is not None for pair in pairs for row in pair)


def _gain(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Gain:
    difference = float(np.mean([one["score"] - other["score"] for one, other in pairs]))
    resampled = [np.subtract(one["resampled"], other["resampled"]) for one, other in pairs]
    return Gain(difference, *interval(resampled))


def interval(resampled_SR: Sequence[Sequence[float] | NDArray[np.float64]]) -> tuple[float, float]:
    """The 95 % interval over patients of the mean over S seeds, whose R resamples are of the same patients."""
    means_R: NDArray[np.float64] = np.array(resampled_SR, np.float64).mean(axis=0)
    low, high = np.percentile(means_R[~np.isnan(means_R)], _EDGES)
    return float(low), float(high)


def _sentence(recipe: Recipe, one: Comparison, shares: Sequence[float]) -> str:
    """On how many tasks the encoder is above its control, and below it, at each share."""
    counted = []
    for share in [share for share in shares if any(its == share for _, its in one.gains)]:
        gains = [gain for (_, its), gain in one.gains.items() if its == share]
        above, below = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
        counted.append(f"{above} above and {below} below of {len(gains)} at {percent(share)}")
    what = "the content of the tags" if one.against != _START else "pretraining"
    encoders = "one encoder: another pretraining may differ" if one.seeds == 1 else f"{one.seeds} seeds"
    name = f"{backbone_label(one.backbone)} {pair_label(recipe, one.encoder, one.against)}"
    return f"{name}, what {what} gained: tasks whose interval excludes 0: {', '.join(counted)} ({encoders})."


_TEXT = (
    "Differences of frozen scores (logistic regression, linear masks) on the same patients, with 95 % intervals over "
    "these patients. Baseline is the random initialization; shuffled labels are those of other patients, as frequent "
    "as the own ones, so a difference from them comes from the content of the tags."
)
