"""The champion of a task: its best encoder by validation images; `resources.mlflow_registry` publishes it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pipeline.checked_json import read_checked
from pipeline.downstream.predictions import ENCODER_KEY, VALIDATION
from pipeline.evaluation import significance
from pipeline.evaluation.differences import average_by_encoder
from pipeline.evaluation.metrics import image_scores, iou, overlaps
from pipeline.evaluation.significance import PairedTest
from pipeline.files import digest, read_table, write_json
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.recipe.downstream import Metric, Task
from pipeline.settings import Backbone
from pipeline.store import Experiment
from pipeline.training.outcome import has_run

_NO_HIGHER_SCORE = "no arm has a higher score"
_FIRST = "highest score; there was no champion yet"
_NO_COMPARISON = (
    "highest score; the previous champion cannot be compared: its encoder has been replaced, and the validation "
    "images, the metric or the seeds have changed"
)


@dataclass(frozen=True)
class Contender:
    """An arm's encoder with the scores of the models fine-tuned from it on a task's validation images.

    `scores_NS` holds the metric, in [0, 1], by image and seed; `images` is the digest of the images and their truth,
    `patients` their patients; `encoder` is the digest of the encoder (`encoder_digest`). An arm with one encoder per
    pretraining seed is scored by all of them and represented by that of the recipe's first seed, so no seed is selected
    by its result.
    """

    backbone: Backbone
    arm: Arm
    encoder: str
    images: str
    patients: tuple[str, ...]
    scores_NS: NDArray[np.float64]

    @property
    def name(self) -> str:
        """Backbone and arm."""
        return f"{self.backbone}_{self.arm}"

    @property
    def score(self) -> float:
        """The mean over images and seeds."""
        return float(self.scores_NS.mean())

    def is_encoder_of(self, other: "Contender | ChampionRecord") -> bool:
        """Whether both are the same arm with the same encoder."""
        return (self.encoder, self.arm) == (other.encoder, other.arm)


class ChampionRecord(BaseModel):
    """A task's champion as champions/<task>.json stores it, for comparison with later encoders."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backbone: Backbone
    arm: Arm
    encoder: str
    earlier: tuple[str, ...]
    """Digests of former champions."""
    metric: Metric
    images: str
    scores: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Decision:
    """The champion of a task, None if no arm qualifies, and the reason."""

    champion: Contender | None
    earlier: tuple[str, ...]
    """Digests of former champions."""
    changed: bool
    reason: str
    test: PairedTest | None
    """The best arm against the previous champion, if they were compared."""
    contenders: tuple[Contender, ...]
    """By descending score."""


def decide_champion(recipe: Recipe, experiment: Experiment, task: str) -> Decision:
    """The champion of `task`; writes nothing.

    Arms are compared by their mean of the task's metric on its validation images, over all seeds, at the recipe's
    largest fraction. The best arm replaces the champion only if it is `significantly_better`. A champion whose encoder
    has been replaced since is compared by its recorded scores, if the images are the same.
    """
    record = _read_record(experiment, task)
    found = _contenders(recipe, experiment, task)
    if not found:
        return Decision(None, (), False, "no arm has run on all seeds", None, ())
    best, previous = found[0], _previous_champion(record, found, recipe.downstream.tasks[task].champion_metric)
    champion, changed, test = best, False, None
    if previous is None:
        changed, reason = True, _NO_COMPARISON if record else _FIRST
    elif best.is_encoder_of(previous):
        reason = _NO_HIGHER_SCORE
    else:
        test, challengers = lead_test(recipe, best, previous), sum(not c.is_encoder_of(previous) for c in found)
        changed = significantly_better(test, challengers)
        champion, reason = best if changed else previous, _reason(best, test, challengers, changed)
    return Decision(champion, _earlier_champions(record, champion), changed, reason, test, found)


def lead_test(recipe: Recipe, best: Contender, champion: Contender) -> PairedTest:
    """The paired test of `best` against `champion`; models of one encoder count as one draw.

    Two to `FEWEST_SEEDS` - 1 draws take `few_seeds_test`. A single draw has no variation between encoders: the test
    then applies to these models.
    """
    settings = recipe.evaluation
    by_encoder_NS = average_by_encoder(recipe, best.scores_NS - champion.scores_NS)
    if 1 < by_encoder_NS.shape[1] < significance.FEWEST_SEEDS:
        return significance.few_seeds_test(by_encoder_NS, champion.patients)
    return significance.paired_test(by_encoder_NS, champion.patients, settings.test_resamples, settings.seed)


def significantly_better(test: PairedTest, challengers: int) -> bool:
    """Whether the best of `challengers` arms beats the champion; true for at most 2.5 % of equal arms.

    The p-value is adjusted for selecting the best arm (Bonferroni).
    """
    return test.p is not None and test.difference > 0 and test.p * challengers <= significance.LEVEL


def save_champion(recipe: Recipe, experiment: Experiment, task: str, decision: Decision) -> None:
    """Write the champion of `decision`, if there is one, to champions/<task>.json."""
    champion = decision.champion
    if champion is None:
        return
    record = ChampionRecord(
        backbone=champion.backbone,
        arm=champion.arm,
        encoder=champion.encoder,
        earlier=decision.earlier,
        metric=recipe.downstream.tasks[task].champion_metric,
        images=champion.images,
        scores=tuple(map(tuple, champion.scores_NS.tolist())),
    )
    write_json(experiment.champion(task), record.model_dump(mode="json"))


def _contenders(recipe: Recipe, experiment: Experiment, task: str) -> tuple[Contender, ...]:
    """Arms that ran on all seeds, restricted to the most common set of validation images, by descending score."""
    found = [
        contender
        for backbone in recipe.pretraining.backbones
        for arm in recipe.downstream.arms
        if (contender := _contender(recipe, experiment, task, backbone, arm)) is not None
    ]
    if not found:
        return ()
    most_common = Counter(contender.images for contender in found).most_common(1)[0][0]
    return tuple(sorted((c for c in found if c.images == most_common), key=lambda c: -c.score))


def _contender(recipe: Recipe, experiment: Experiment, task: str, backbone: Backbone, arm: Arm) -> Contender | None:
    fraction = max(recipe.downstream.fractions)
    folders = [experiment.model(backbone, arm, task, fraction, seed) for seed in recipe.downstream.seeds]
    if not all(has_run(folder) and (folder / VALIDATION).is_file() for folder in folders):
        return None
    tables = [read_table(folder / VALIDATION) for folder in folders]
    encoders = _encoders(recipe, tables)
    images = {_images_digest(table) for table in tables}
    if encoders is None or len(images) > 1:  # the seeds were fine-tuned on different images or encoders
        return None
    scores_NS = np.stack([_scores(recipe.downstream.tasks[task], table) for table in tables], axis=1)
    patients = tuple(tables[0]["patient"].to_pylist())
    return Contender(backbone, arm, encoders[recipe.pretraining.seeds[0]], images.pop(), patients, scores_NS)


def _encoders(recipe: Recipe, tables: Sequence[pa.Table]) -> dict[int, str] | None:
    """Digest of the encoder of each pretraining seed; None if fine-tuning seeds of one of them disagree."""
    found: dict[int, str] = {}
    for seed, table in zip(recipe.downstream.seeds, tables, strict=True):
        encoder = table.schema.metadata[ENCODER_KEY].decode()
        if found.setdefault(recipe.pretraining_seed(seed), encoder) != encoder:
            return None
    return found


def _images_digest(table: pa.Table) -> str:
    return digest(table.select(["image_id", "patient", "truth", "truth_pixels"]).to_pylist())


def _scores(task: Task, table: pa.Table) -> NDArray[np.float64]:
    """The task's champion metric of each image, shape (N,)."""
    if task.champion_metric != "iou":
        return image_scores(table)
    scores: NDArray[np.float64] = iou(*overlaps(table)).mean(axis=1)
    return scores


def _read_record(experiment: Experiment, task: str) -> ChampionRecord | None:
    path = experiment.champion(task)
    return read_checked(ChampionRecord, path) if path.is_file() else None


def _previous_champion(record: ChampionRecord | None, found: Sequence[Contender], metric: Metric) -> Contender | None:
    """The recorded champion with scores on the images of `found`; None if there are none to compare."""
    if record is None:
        return None
    for contender in found:
        if contender.is_encoder_of(record):
            return contender
    scores_NS = np.array(record.scores)
    if (record.images, record.metric, scores_NS.shape) != (found[0].images, metric, found[0].scores_NS.shape):
        return None
    return Contender(record.backbone, record.arm, record.encoder, record.images, found[0].patients, scores_NS)


def _earlier_champions(record: ChampionRecord | None, champion: Contender) -> tuple[str, ...]:
    """Digests of the champions before `champion`."""
    if record is None:
        return ()
    return tuple(dict.fromkeys(e for e in (*record.earlier, record.encoder) if e != champion.encoder))


def _reason(best: Contender, test: PairedTest, challengers: int, changed: bool) -> str:
    if test.difference <= 0:
        return _NO_HIGHER_SCORE
    if test.p is None:
        needed = significance.FEWEST_PATIENTS
        return f"{best.name} leads by {test.difference:.3f}, but a decision requires at least {needed} patients"
    adjusted = min(1.0, test.p * challengers)
    return (
        f"{best.name} leads by {test.difference:.3f}, 95 % interval {test.low:.3f} to {test.high:.3f}, "
        f"p {adjusted:.2g} as the best of {challengers}: {'' if changed else 'not '}significant"
    )
