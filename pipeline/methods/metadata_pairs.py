"""Method metadata_pairs: two images of one patient or file are alike, and no image of a patient is unlike another."""

from dataclasses import replace
from typing import Literal

from pipeline.methods.contrastive import ContrastiveSettings
from pipeline.methods.method import register
from pipeline.methods.simclr import SIMCLR


class MetadataPairsSettings(ContrastiveSettings):
    """Which images make a pair."""

    pairs: Literal["patient", "file"] = "patient"
    """Two images of one patient; or of one file: two frames of a cine, if `archive.frames_per_cine` is above 1."""


METADATA_PAIRS = register(
    replace(
        SIMCLR,
        name="metadata_pairs",
        label="Pairs",
        description="contrast of views of two images of one patient with those of other patients",
        card="Trained to tell views of two ultrasound images of one patient or file from the views of images of other "
        "patients, without labels.",
        settings=MetadataPairsSettings,
        paired=True,
    )
)
