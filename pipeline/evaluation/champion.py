"""Which pretrained encoder is a task's champion, decided on validation images.

Belongs here: who is compared, the decision, and its file. Not here: the registry in which others find the champion.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipeline.checked_json import read_checked
from pipeline.downstream.predictions import ENCODER_KEY, VALIDATION
from pipeline.evaluation.differences import drawn_differences
from pipeline.evaluation.metrics import image_scores, iou, overlaps
from pipeline.evaluation.significance import (
    FEWEST_PATIENTS,
    FEWEST_SEEDS,
    LEVEL,
    PairedTest,
    few_seeds_test,
    paired_test,
)
from pipeline.files import digest, read_table, write_json
from pipeline.recipe import Arm, Backbone, Metric, Recipe, Task
from pipeline.store import Experiment
from pipeline.training.outcome import Outcome

_NONE_AHEAD = "no arm has a higher score"


@dataclass(frozen=True)
class Contender:
    """An arm's encoder, by the validation images of a task that it was fine-tuned on.

    `scores_NS` are the metric of each image and seed, in [0, 1]; `images` is the digest of those images and their
    truth, `patients` names theirs; `encoder` is the digest of the encoder (`encoder_digest`). Where the arm has an
    encoder per pretraining seed, that is the one of the recipe's first: the arm is judged by all of them, and nobody
    picks the seed that came out best.
    """

    backbone: Backbone
    arm: Arm
    encoder: str
    images: str
    patients: tuple[str, ...]
    scores_NS: NDArray[np.float64]

    @property
    def name(self) -> str:
        """The arm."""
        return f"{self.backbone}_{self.arm}"

    @property
    def score(self) -> float:
        """The mean over images and seeds."""
        return float(self.scores_NS.mean())


class ChampionRecord(BaseModel):
    """What is remembered of a task's champion, so that a later encoder can be compared with it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backbone: Backbone
    arm: Arm
    encoder: str
    earlier: tuple[str, ...]
    """Encoders that were champions before."""
    metric: Metric
    images: str
    scores: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Decision:
    """Who is the champion of a task, and why; None where no arm can be one."""

    champion: Contender | None
    earlier: tuple[str, ...]
    """Digests of the encoders that were champions before this one."""
    moved: bool
    reason: str
    test: PairedTest | None
    """Of the best arm against the champion that there was, where they were compared."""
    contenders: tuple[Contender, ...]
    """By their score, the best first."""


def decide_champion(recipe: Recipe, experiment: Experiment, task: str) -> Decision:
    """The champion of the task called `task`: nothing is written.

    Compared are the arms' means of the task's metric on its validation images, over all seeds, in the recipe's largest
    fraction. A champion gives way to the best arm only if that one is `ahead`. It is compared as it is now, or, where
    its encoder has been replaced since, by what is remembered of it on the same images.
    """
    found = _contenders(recipe, experiment, task)
    reigning = _reigning(_saved_champion(experiment, task), found, recipe.downstream.tasks[task].champion_metric)
    if not found:
        return Decision(None, (), False, "no arm has run on all seeds", None, ())
    best = found[0]
    if reigning is None:
        return Decision(
            best, _earlier_champions(experiment, task, best), True, _why_first(experiment, task), None, found
        )
    if (best.encoder, best.arm) == (reigning.encoder, reigning.arm):
        return Decision(best, _earlier_champions(experiment, task, best), False, _NONE_AHEAD, None, found)
    test = lead(recipe, best, reigning)
    challengers = sum((c.encoder, c.arm) != (reigning.encoder, reigning.arm) for c in found)
    moved = ahead(test, challengers)
    champion, why = best if moved else reigning, _why(best, test, challengers, moved)
    return Decision(champion, _earlier_champions(experiment, task, champion), moved, why, test, found)


def lead(recipe: Recipe, best: Contender, reigning: Contender) -> PairedTest:
    """The test of the scores of `best` minus those of `reigning`, models of one encoder counting as one draw.

    Several draws fewer than `FEWEST_SEEDS` count as what they are (`few_seeds_test`). With a single one nothing tells
    how much another would differ, and the test is about these models.
    """
    settings = recipe.evaluation
    drawn_NS = drawn_differences(recipe, best.scores_NS - reigning.scores_NS)
    if 1 < drawn_NS.shape[1] < FEWEST_SEEDS:
        return few_seeds_test(drawn_NS, reigning.patients)
    return paired_test(drawn_NS, reigning.patients, settings.test_resamples, settings.seed)


def ahead(test: PairedTest, challengers: int) -> bool:
    """Whether the best of so many arms is better than the champion beyond chance: of equal ones at most 2.5 % are.

    The p-value is adjusted for the number of arms of which the best was taken (Bonferroni).
    """
    return test.p is not None and test.difference > 0 and test.p * challengers <= LEVEL


def save_champion(recipe: Recipe, experiment: Experiment, task: str, decision: Decision) -> None:
    """Remember the decision's champion."""
    champion = decision.champion
    if champion is None:
        return
    saved = ChampionRecord(
        backbone=champion.backbone,
        arm=champion.arm,
        encoder=champion.encoder,
        earlier=decision.earlier,
        metric=recipe.downstream.tasks[task].champion_metric,
        images=champion.images,
        scores=tuple(map(tuple, champion.scores_NS.tolist())),
    )
    write_json(experiment.champion(task), saved.model_dump(mode="json"))


def _contenders(recipe: Recipe, experiment: Experiment, task: str) -> tuple[Contender, ...]:
    """The arms that ran on all seeds and on the same images, which most of them have; the best first."""
    found = [
        contender
        for backbone in recipe.pretraining.backbones
        for arm in recipe.downstream.arms
        if (contender := _contender(recipe, experiment, task, backbone, arm)) is not None
    ]
    if not found:
        return ()
    usual = Counter(contender.images for contender in found).most_common(1)[0][0]
    return tuple(sorted((c for c in found if c.images == usual), key=lambda c: -c.score))


def _contender(recipe: Recipe, experiment: Experiment, task: str, backbone: Backbone, arm: Arm) -> Contender | None:
    fraction = max(recipe.downstream.fractions)
    folders = [experiment.model(backbone, arm, task, fraction, seed) for seed in recipe.downstream.seeds]
    if not all(_has_run(folder) for folder in folders):
        return None
    tables = [read_table(folder / VALIDATION) for folder in folders]
    encoders = _encoders(recipe, tables)
    images = {_images(table) for table in tables}
    if encoders is None or len(images) > 1:  # some seeds were fine-tuned before, others after a change
        return None
    scores_NS = np.stack([_scores(recipe.downstream.tasks[task], table) for table in tables], axis=1)
    patients = tuple(tables[0]["patient"].to_pylist())
    return Contender(backbone, arm, encoders[recipe.pretraining.seeds[0]], images.pop(), patients, scores_NS)


def _encoders(recipe: Recipe, tables: Sequence[pa.Table]) -> dict[int, str] | None:
    """Digest of the encoder of each pretraining seed, by the tables of the fine-tuning seeds; None if they disagree."""
    found: dict[int, str] = {}
    for seed, table in zip(recipe.downstream.seeds, tables, strict=True):
        encoder = table.schema.metadata[ENCODER_KEY].decode()
        if found.setdefault(recipe.pretraining_seed(seed), encoder) != encoder:
            return None
    return found


def _has_run(folder: Path) -> bool:
    outcome = Outcome.read(folder)
    return outcome is not None and outcome.status == "ran" and (folder / VALIDATION).is_file()


def _images(table: pa.Table) -> str:
    return digest(table.select(["image_id", "patient", "truth", "truth_pixels"]).to_pylist())


def _scores(task: Task, table: pa.Table) -> NDArray[np.float64]:
    """The task's metric of each image, shape (N,)."""
    if task.champion_metric != "iou":
        return image_scores(table)
    scores: NDArray[np.float64] = iou(*overlaps(table)).mean(axis=1)
    return scores


def _saved_champion(experiment: Experiment, task: str) -> ChampionRecord | None:
    path = experiment.champion(task)
    return read_checked(TypeAdapter(ChampionRecord), path) if path.is_file() else None


def _reigning(saved: ChampionRecord | None, found: tuple[Contender, ...], metric: Metric) -> Contender | None:
    """The champion on the images that `found` were judged on; None where there is none that can be compared."""
    if saved is None or not found:
        return None
    for contender in found:
        if (contender.encoder, contender.arm) == (saved.encoder, saved.arm):
            return contender
    scores_NS = np.array(saved.scores)
    same = (saved.images, saved.metric, scores_NS.shape) == (found[0].images, metric, found[0].scores_NS.shape)
    if not same:
        return None
    return Contender(saved.backbone, saved.arm, saved.encoder, saved.images, found[0].patients, scores_NS)


def _earlier_champions(experiment: Experiment, task: str, champion: Contender) -> tuple[str, ...]:
    """Encoders that this store has crowned before `champion`."""
    saved = _saved_champion(experiment, task)
    if saved is None:
        return ()
    return tuple(dict.fromkeys(e for e in (*saved.earlier, saved.encoder) if e != champion.encoder))


def _why_first(experiment: Experiment, task: str) -> str:
    if _saved_champion(experiment, task) is None:
        return "the highest score; there was no champion yet"
    return (
        "the highest score; the champion that there was cannot be compared: its encoder has been replaced, and "
        "validation images, metric or seeds have changed"
    )


def _why(best: Contender, test: PairedTest, challengers: int, moved: bool) -> str:
    if test.difference <= 0:
        return _NONE_AHEAD
    if test.p is None:
        return f"{best.name} is ahead by {test.difference:.3f}, but fewer than {FEWEST_PATIENTS} patients do not decide"
    how = "above" if moved else "not above"
    adjusted = min(1.0, test.p * challengers)
    return (
        f"{best.name} is ahead by {test.difference:.3f}, 95 % interval {test.low:.3f} to {test.high:.3f}, "
        f"p {adjusted:.2g} as the best of {challengers}: {how} chance"
    )
