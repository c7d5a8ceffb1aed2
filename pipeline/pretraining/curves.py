"""What the curves of an encoder's training mean, those that earlier versions wrote too.

Belongs here: names of metrics whose meaning has changed. Not here: measuring them, files.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

from pipeline.training.loop import VALIDATION_LOSS

RECONSTRUCTION = "val_mse"
SCORE_INPAINTED = "val_score_inpainted"
ADVERSARIAL_SHARE = "train_adversarial_share"
"""Ratio of the adversarial term's gradient norm to the reconstruction term's, at the encoder's weights."""
SHARE_AT_THE_PATCH = "train_adversarial_share_at_the_patch"
"""The same at the inpainted patches, which earlier versions measured and called `ADVERSARIAL_SHARE`."""
T = TypeVar("T")


def selected_by(names: Collection[str]) -> str:
    """The metric whose lowest epoch was kept, by the `names` of a training's metrics.

    Context encoders are kept by their reconstruction error, those of earlier versions by their validation L_F, for
    which D was normalized otherwise than in training.
    """
    return RECONSTRUCTION if SCORE_INPAINTED in names else VALIDATION_LOSS


def named_as_today(metrics: Mapping[str, T]) -> dict[str, T]:
    """`metrics` with the share that an earlier version measured under its own name."""
    if SCORE_INPAINTED in metrics:
        return dict(metrics)
    return {SHARE_AT_THE_PATCH if name == ADVERSARIAL_SHARE else name: value for name, value in metrics.items()}
