"""Method supcon: images with common weak labels are alike, too (supervised contrast, Khosla et al. 2020)."""

from dataclasses import replace

from pipeline.methods.method import register
from pipeline.methods.simclr import SIMCLR

SUPCON = register(
    replace(
        SIMCLR,
        name="supcon",
        label="SupCon",
        description="contrast of views of images with common weak labels with those of other images",
        card="Trained to tell views of ultrasound images with common weak labels of the DICOM tags from the views of "
        "others (supervised contrast).",
        labelled=True,
        controls=("shuffled", "source"),
    )
)
