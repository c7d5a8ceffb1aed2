"""How far context encoders collapsed: whether every image got the same patch.

Belongs here: reading what trainings left, and its measure. Not here: its wording (`tables`), training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from pipeline.evaluation.bootstrap import deviation
from pipeline.pretraining.curves import selected_by
from pipeline.pretraining.encoder_folder import read_curves
from pipeline.recipe import Backbone, Recipe
from pipeline.store import Experiment
from pipeline.training.outcome import Outcome, Status

DIVERSITY, SATURATION = "val_diversity", "train_saturation"
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
        return int(np.argmin(self.curves[selected_by(self.curves)]))

    @property
    def collapsed(self) -> bool:
        """Whether its diversity is below `COLLAPSED_BELOW` in the epoch kept or in the last one."""
        diversity = self.curves[DIVERSITY]
        return min(diversity[self.kept], diversity[-1]) < COLLAPSED_BELOW


@dataclass(frozen=True)
class ModeCollapse:
    """One row of the collapse table, of all seeds of an encoder; its fields, in order, are the table's columns.

    Of `runs`, those with a diversity, `collapsed` are so by it; `diverged` are beside them, and have no curves.
    Diversities and saturations are means over the runs, None without a run; `_sd` their deviations, None of one run.
    """

    backbone: Backbone
    encoder: str
    runs: int = 0
    diverged: int = 0
    collapsed: int = 0
    epochs_kept: str = ""
    diversity_kept: float | None = None
    diversity_kept_sd: float | None = None
    diversity_last: float | None = None
    diversity_last_sd: float | None = None
    saturation_first: float | None = None
    saturation_last: float | None = None


@dataclass(frozen=True)
class ByEpoch:
    """A metric of an encoder, epoch by epoch, averaged over those `runs` whose curves have it."""

    runs: int
    means: Sequence[float]


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


def mode_collapses(recipe: Recipe, trainings: Sequence[Training]) -> list[ModeCollapse]:
    """One row per context encoder of which a training ended, also where all diverged."""
    rows = []
    for place, ended in _by_context_encoder(recipe, trainings).items():
        row = ModeCollapse(*place, diverged=sum(training.status == "diverged" for training in ended))
        runs = [training for training in ended if DIVERSITY in training.curves]
        rows.append(_measured(row, runs) if runs else row)
    return rows


def mean_by_epoch(recipe: Recipe, trainings: Sequence[Training], metric: str) -> dict[tuple[Backbone, str], ByEpoch]:
    """A metric of the curves of every context encoder of which a training ended; without a value where none has it."""
    found = {}
    for place, ended in _by_context_encoder(recipe, trainings).items():
        runs = [training.curves[metric] for training in ended if metric in training.curves]
        found[place] = ByEpoch(len(runs), [float(np.mean(epoch)) for epoch in zip(*runs, strict=False)])
    return found


def _by_context_encoder(recipe: Recipe, trainings: Sequence[Training]) -> dict[tuple[Backbone, str], list[Training]]:
    found: dict[tuple[Backbone, str], list[Training]] = {}
    for training in trainings:
        if training.encoder in recipe.pretraining.context_encoders:
            found.setdefault((training.backbone, training.encoder), []).append(training)
    return found


def _measured(row: ModeCollapse, runs: Sequence[Training]) -> ModeCollapse:
    kept = np.array([run.curves[DIVERSITY][run.kept] for run in runs])
    last = np.array([run.curves[DIVERSITY][-1] for run in runs])
    several = len(runs) > 1
    return replace(
        row,
        runs=len(runs),
        collapsed=sum(run.collapsed for run in runs),
        epochs_kept=", ".join(str(run.kept + 1) for run in runs),
        diversity_kept=float(kept.mean()),
        diversity_kept_sd=deviation(kept) if several else None,
        diversity_last=float(last.mean()),
        diversity_last_sd=deviation(last) if several else None,
        saturation_first=float(np.mean([run.curves[SATURATION][0] for run in runs])),
        saturation_last=float(np.mean([run.curves[SATURATION][-1] for run in runs])),
    )
