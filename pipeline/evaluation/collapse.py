"""How far context encoders collapsed: whether every image got the same patch.

Belongs here: reading what trainings left, and its measure. Not here: its wording (`tables`), training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np

from pipeline.evaluation.bootstrap import deviation
from pipeline.pretraining.encoder_folder import read_curves
from pipeline.recipe import Backbone, Recipe
from pipeline.store import Experiment
from pipeline.training.loop import SELECTED_BY
from pipeline.training.outcome import Outcome, Status

DIVERSITY, SATURATION, ADVERSARIAL_SHARE = "val_diversity", "train_saturation", "train_adversarial_share"
COLLAPSED_BELOW = 0.1**0.5
"""A diversity: the inpainted patches then differ from image to image with less than a tenth of the real ones' variance.

The best predictor of a share R² of that variance has diversity √R²; below, the context tells less than a tenth.
"""


@dataclass(frozen=True)
class Training:
    """What the training of an encoder left: what became of it, its metrics, a value per epoch, and what it took."""

    backbone: Backbone
    encoder: str
    seed: int
    status: Status
    reason: str
    curves: Mapping[str, Sequence[float]]
    seconds: float | None = None

    @property
    def kept(self) -> int:
        """Position of the epoch whose weights are the encoder, from 0."""
        return int(np.argmin(self.curves[SELECTED_BY]))

    @property
    def collapsed(self) -> bool:
        """Whether its diversity is below `COLLAPSED_BELOW` in the epoch kept or in the last one."""
        diversity = self.curves[DIVERSITY]
        return min(diversity[self.kept], diversity[-1]) < COLLAPSED_BELOW


@dataclass(frozen=True)
class Collapse:
    """One row of the collapse table, of all seeds of an encoder; its fields, in order, are the table's columns.

    Of `runs` that ended, `collapsed` are so by their diversity; `diverged` are beside them, and have no curves.
    Diversities and saturations are means over the runs, `_sd` their deviations, None of one run.
    """

    backbone: Backbone
    encoder: str
    runs: int
    diverged: int
    collapsed: int
    epochs_kept: str
    diversity_kept: float
    diversity_kept_sd: float | None
    diversity_last: float
    diversity_last_sd: float | None
    saturation_first: float
    saturation_last: float


def trainings_of(recipe: Recipe, experiment: Experiment) -> list[Training]:
    """Every training of an encoder of `recipe` that has ended in this experiment."""
    found = []
    settings = recipe.pretraining
    for backbone, encoder, seed in product(settings.backbones, settings.encoders, settings.seeds):
        folder = experiment.encoder(backbone, encoder, seed)
        outcome = Outcome.read(folder)
        if outcome is not None:
            became = (outcome.status, outcome.reason, read_curves(folder), outcome.seconds)
            found.append(Training(backbone, encoder, seed, *became))
    return found


def collapses(trainings: Sequence[Training]) -> list[Collapse]:
    """One row per context encoder of which a training ran."""
    rows = []
    for (backbone, encoder), of_seeds in groupby(trainings, key=lambda t: (t.backbone, t.encoder)):
        ended = list(of_seeds)
        inpainted = [training for training in ended if DIVERSITY in training.curves]
        if inpainted:
            diverged = sum(training.status == "diverged" for training in ended)
            rows.append(_collapse(backbone, encoder, inpainted, diverged))
    return rows


def mean_by_epoch(trainings: Sequence[Training], metric: str) -> dict[tuple[Backbone, str], list[float]]:
    """A metric of the curves, epoch by epoch, averaged over the seeds of each encoder whose curves have it."""
    found: dict[tuple[Backbone, str], list[Sequence[float]]] = {}
    for training in trainings:
        if metric in training.curves:
            found.setdefault((training.backbone, training.encoder), []).append(training.curves[metric])
    return {place: [float(np.mean(epoch)) for epoch in zip(*runs, strict=False)] for place, runs in found.items()}


def _collapse(backbone: Backbone, encoder: str, runs: Sequence[Training], diverged: int) -> Collapse:
    kept = np.array([run.curves[DIVERSITY][run.kept] for run in runs])
    last = np.array([run.curves[DIVERSITY][-1] for run in runs])
    several = len(runs) > 1
    return Collapse(
        backbone,
        encoder,
        len(runs),
        diverged,
        sum(run.collapsed for run in runs),
        ", ".join(str(run.kept + 1) for run in runs),
        float(kept.mean()),
        deviation(kept) if several else None,
        float(last.mean()),
        deviation(last) if several else None,
        float(np.mean([run.curves[SATURATION][0] for run in runs])),
        float(np.mean([run.curves[SATURATION][-1] for run in runs])),
    )
