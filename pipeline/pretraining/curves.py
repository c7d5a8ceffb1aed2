"""Names and meaning of the metrics in an encoder's training curves, also in curves of earlier versions."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from pipeline.methods import Method
from pipeline.training.loop import VALIDATION_LOSS

RECONSTRUCTION = "val_mse"
SCORE_INPAINTED = "val_score_inpainted"
DIVERSITY = "val_diversity"
"""Standard deviation of inpainted patches across images over that of the real ones; near 0 is mode collapse."""
SATURATION = "train_saturation"
"""Share of D's scores beyond the margin; 1 if its loss is 0."""
ADVERSARIAL_SHARE = "train_adversarial_share"
"""Ratio of the adversarial term's gradient norm to the reconstruction term's, at the encoder's weights."""
ADVERSARIAL_WEIGHT = "train_adversarial_weight"
"""λadv, if it is adjusted to keep that share at a target."""
SHARE_AT_THE_PATCH = "train_adversarial_share_at_the_patch"
"""The same at the inpainted patches, which earlier versions measured and called `ADVERSARIAL_SHARE`."""
PATCH_ERROR = "val_patch_error"
"""Mean squared error of hidden patches, each normalized by its own mean and deviation."""
LABEL_LOSS = "val_label_loss"
LABEL_SHARE = "train_label_share"
"""Ratio of the label loss's gradient norm to the reconstruction loss's, at the encoder's weights."""
LABEL_WEIGHT = "train_label_weight"
"""The weight of the label loss, which is adjusted to keep that share at a target."""
NEIGHBOUR_AUC = "val_neighbour_auc"
LINEAR_AUC = "val_linear_auc"
"""Area under the ROC curve of the archive's labels, mean over labels, by nearest images and by a linear classifier."""
EFFECTIVE_RANK = "val_effective_rank"
ALIGNMENT = "val_alignment"
UNIFORMITY = "val_uniformity"
SCORE_TITLES = {
    LINEAR_AUC: "AUC of the archive's labels, linear",
    NEIGHBOUR_AUC: "AUC of the archive's labels, nearest images",
    EFFECTIVE_RANK: "effective rank of the features, validation",
    ALIGNMENT: "alignment of two views, validation",
    UNIFORMITY: "uniformity of the features, validation",
}
"""Titles of the panels of what scored epochs of every method have (`pipeline.pretraining.encoder_scores`)."""
T = TypeVar("T")


def selected_by(names: Collection[str]) -> str:
    """The metric whose lowest epoch was kept, by the `names` of a training's metrics, if its outcome does not state it.

    Context encoders are selected by reconstruction error; those of earlier versions by validation L_F, for which D was
    normalized otherwise than in training.
    """
    return RECONSTRUCTION if SCORE_INPAINTED in names or LABEL_LOSS in names else VALIDATION_LOSS


def metric_names(curves: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of the metrics that some epoch has."""
    return list(dict.fromkeys(name for metrics in curves for name in metrics))


def named_as_today(metrics: Mapping[str, T]) -> dict[str, T]:
    """`metrics` with the share that an earlier version measured under its own name."""
    if SCORE_INPAINTED in metrics:
        return dict(metrics)
    return {SHARE_AT_THE_PATCH if name == ADVERSARIAL_SHARE else name: value for name, value in metrics.items()}


def by_panel_title(metrics: Mapping[str, Sequence[float]], method: Method) -> dict[str, Sequence[float]]:
    """The curves of an encoder that reports show, by the title of their panel; earlier versions recorded fewer."""
    titles = {**method.curve_titles, **SCORE_TITLES}
    if method.inpaints and selected_by(metrics) == VALIDATION_LOSS:
        titles[VALIDATION_LOSS] = "L_F, validation (D normalized by running statistics)"
    return {title: metrics[name] for name, title in titles.items() if name in metrics}
