"""Method spark: hidden patches are inpainted from the visible ones by a sparse network (Tian et al. 2023)."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.methods.method import Method, TrainingSettings, register

MaskRatio = Annotated[float, Field(gt=0, lt=1)]
PatchSide = Literal[8, 16, 32]


class SparkSettings(TrainingSettings):
    """Which part of an image is hidden."""

    mask_ratio: MaskRatio = 0.6
    """Share of an image's patches that are hidden, at least one; at least one is visible."""
    mask_patch: PatchSide | None = None
    """Side of a patch in pixels; None: the largest that gives an image at least 48 patches, else 8."""


SPARK = register(
    Method(
        name="spark",
        label="SparK",
        description="masked patches inpainted from sparse features, without metadata",
        card="Trained to inpaint hidden patches of ultrasound images, from features of the visible patches alone "
        "(SparK), without labels.",
        trainer="pipeline.pretraining.spark:SparkRun",
        settings=SparkSettings,
        curve_titles={
            "train_loss": "error of hidden patches, training",
            "val_loss": "error of hidden patches, validation",
        },
    )
)
