"""Method simclr: two views of an image are alike, those of all other images are not (Chen et al. 2020)."""

from pipeline.methods.contrastive import CURVE_TITLES, TRAINER, ContrastiveSettings
from pipeline.methods.method import Method, register

SIMCLR = register(
    Method(
        name="simclr",
        label="SimCLR",
        description="contrast of two views of an image with those of other images, without metadata",
        card="Trained to tell two views of one ultrasound image from the views of all others (SimCLR), without labels.",
        trainer=TRAINER,
        settings=ContrastiveSettings,
        curve_titles=CURVE_TITLES,
    )
)
"""The other contrastive methods change this one."""
