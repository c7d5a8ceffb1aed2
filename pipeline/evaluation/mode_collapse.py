"""Mode collapse of context encoders: whether every image is inpainted with the same patch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation.bootstrap import deviation
from pipeline.evaluation.display_names import arm_label, backbone_label
from pipeline.evaluation.document import Section, TextTable
from pipeline.evaluation.evidence import Evidence, Training
from pipeline.pretraining.curves import ADVERSARIAL_SHARE, DIVERSITY, SATURATION, SHARE_AT_THE_PATCH
from pipeline.recipe import Recipe
from pipeline.settings import Backbone

COLLAPSED_BELOW = 0.1**0.5
"""Threshold of the diversity: the variance of the patches across images is then a tenth of that of the real ones.

A predictor that explains the share R² of that variance, and adds nothing else, has the diversity √R².
"""
_COLLAPSE = (
    "Diversity: standard deviation of the inpainted patches across images, divided by that of the real patches, on "
    f"validation images; mean ± SD over the runs. Collapsed: below {COLLAPSED_BELOW:.2f} at the selected epoch or at "
    "the last one, which is less than a tenth of the real variance. Runs, here and below: the trainings whose curves "
    "hold the metric; diverged ones have no curves, and earlier versions recorded fewer metrics."
)
_EPOCHS = 10  # columns that fit on a page


@dataclass(frozen=True)
class ModeCollapse:
    """One context encoder over all seeds; the fields, in order, are the columns of collapse_table.csv.

    `runs` are the trainings with a diversity, and `collapsed` counts those below the threshold; `diverged` trainings
    have no curves and are not among them. Diversities and saturations are means over the runs (None without a run;
    saturations also without a discriminator), `_sd` their standard deviations (None for a single run); `kept` is the
    selected epoch.
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
    """The mean of a metric at each epoch, over the `runs` whose curves hold it."""

    runs: int
    means: Sequence[float]


def mode_collapses(recipe: Recipe, trainings: Sequence[Training]) -> list[ModeCollapse]:
    """One row per context encoder with a finished training, even if all of them diverged."""
    rows = []
    for encoder, finished in _by_context_encoder(recipe, trainings).items():
        row = ModeCollapse(*encoder, diverged=sum(training.status == "diverged" for training in finished))
        runs = [training for training in finished if DIVERSITY in training.curves]
        rows.append(_with_diversity(row, runs) if runs else row)
    return rows


def has_collapsed(training: Training) -> bool:
    """Whether the diversity is below `COLLAPSED_BELOW` at the selected epoch or at the last one."""
    diversity = training.curves[DIVERSITY]
    return min(diversity[training.selected_epoch], diversity[-1]) < COLLAPSED_BELOW


def mean_by_epoch(recipe: Recipe, trainings: Sequence[Training], metric: str) -> dict[tuple[Backbone, str], ByEpoch]:
    """The mean of `metric` at each epoch, for every context encoder with a finished training."""
    found = {}
    for encoder, finished in _by_context_encoder(recipe, trainings).items():
        runs = [training.curves[metric] for training in finished if metric in training.curves]
        found[encoder] = ByEpoch(len(runs), [float(np.mean(epoch)) for epoch in zip(*runs, strict=False)])
    return found


def _by_context_encoder(recipe: Recipe, trainings: Sequence[Training]) -> dict[tuple[Backbone, str], list[Training]]:
    found: dict[tuple[Backbone, str], list[Training]] = {}
    for training in trainings:
        if training.encoder in recipe.pretraining.context_encoders:
            found.setdefault((training.backbone, training.encoder), []).append(training)
    return found


def _with_diversity(row: ModeCollapse, runs: Sequence[Training]) -> ModeCollapse:
    kept = np.array([run.curves[DIVERSITY][run.selected_epoch] for run in runs])
    last = np.array([run.curves[DIVERSITY][-1] for run in runs])
    saturations = [run.curves[SATURATION] for run in runs if SATURATION in run.curves]  # none without an adversary
    several = len(runs) > 1
    return replace(
        row,
        runs=len(runs),
        collapsed=sum(map(has_collapsed, runs)),
        epochs_kept=", ".join(str(run.selected_epoch + 1) for run in runs),
        diversity_kept=float(kept.mean()),
        diversity_kept_sd=deviation(kept) if several else None,
        diversity_last=float(last.mean()),
        diversity_last_sd=deviation(last) if several else None,
        saturation_first=float(np.mean([curve[0] for curve in saturations])) if saturations else None,
        saturation_last=float(np.mean([curve[-1] for curve in saturations])) if saturations else None,
    )


def mode_collapse_sections(evidence: Evidence, rows: Sequence[ModeCollapse]) -> list[Section]:
    """The table of `rows`, then the metrics of D by epoch; empty if no context encoder has been trained."""
    if not rows:
        return []
    ratio = "Gradient norm of the adversarial term relative to the reconstruction term at the {}, mean over the runs"
    return [
        Section("", mode_collapse_table(evidence.recipe, rows), [_COLLAPSE]),
        *_epochs_sections("Share of D's scores beyond the margin, mean over the runs", evidence, SATURATION),
        *_epochs_sections(ratio.format("encoder's weights"), evidence, ADVERSARIAL_SHARE, decimals=1),
        *_epochs_sections(ratio.format("inpainted patches"), evidence, SHARE_AT_THE_PATCH, decimals=1),
    ]


def _epochs_sections(title: str, evidence: Evidence, metric: str, decimals: int = 0) -> list[Section]:
    """A section with `metric` by epoch; empty if no run recorded it."""
    by_epoch = mean_by_epoch(evidence.recipe, evidence.trainings, metric)
    if not any(row.runs for row in by_epoch.values()):
        return []
    return [Section(title, epochs_table(evidence.recipe, by_epoch, decimals))]


def mode_collapse_table(recipe: Recipe, rows: Sequence[ModeCollapse]) -> TextTable:
    """One row per context encoder: diversity of its patches, and how many of its runs collapsed."""
    return TextTable.of(
        rows,
        {
            "Backbone": lambda row: backbone_label(row.backbone),
            "Pretraining": lambda row: arm_label(recipe, row.encoder),
            "Runs": lambda row: str(row.runs),
            "Selected epochs": lambda row: row.epochs_kept or "–",
            "Diversity, selected epoch": lambda row: _mean_and_sd(row.diversity_kept, row.diversity_kept_sd),
            "Diversity, last epoch": lambda row: _mean_and_sd(row.diversity_last, row.diversity_last_sd),
            "Collapsed": _collapsed,
        },
        numbers_from=2,
    )


def epochs_table(recipe: Recipe, by_epoch: Mapping[tuple[Backbone, str], ByEpoch], decimals: int = 0) -> TextTable:
    """One row per context encoder: a metric as a percentage at up to `_EPOCHS` evenly spread epochs.

    The last epoch of every shorter training is added.
    """
    lengths = {len(row.means) for row in by_epoch.values()} - {0}
    spread = np.linspace(1, max(lengths), min(max(lengths), _EPOCHS))
    shown = sorted(lengths | {round(epoch) for epoch in spread})
    body = [
        (
            backbone_label(backbone),
            arm_label(recipe, encoder),
            str(row.runs),
            *(_share(row.means[epoch - 1], decimals) if epoch <= len(row.means) else "–" for epoch in shown),
        )
        for (backbone, encoder), row in by_epoch.items()
    ]
    return TextTable(("Backbone", "Pretraining", "Runs", *(f"Epoch {epoch}" for epoch in shown)), body, numbers_from=2)


def _collapsed(row: ModeCollapse) -> str:
    if not row.runs:
        return f"– ({row.diverged} diverged)" if row.diverged else "–"
    return f"{row.collapsed} of {row.runs}" + (f" ({row.diverged} more diverged)" if row.diverged else "")


def _share(value: float, decimals: int) -> str:
    return f"{value:.{decimals}%}".replace("%", " %")


def _mean_and_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"
