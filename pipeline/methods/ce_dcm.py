"""Method ce_dcm: a context encoder whose discriminator sees the weak labels, the paper's own method (section 3)."""

from dataclasses import replace

from pipeline.methods.ce import CE
from pipeline.methods.method import register

CE_DCM = register(
    replace(
        CE,
        name="ce_dcm",
        label="CE+DCM",
        description="context encoder whose discriminator sees the weak labels",
        card="Trained to inpaint the hidden centre of ultrasound images, against a discriminator that sees the weak "
        "labels of the DICOM tags.",
        labelled=True,
        controls=("shuffled", "source"),
    )
)
