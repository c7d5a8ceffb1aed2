"""The section `downstream`: tasks, arms and fine-tuning (paper section 4.4)."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from pipeline.recipe.arms import PAPER_ARMS, Arm
from pipeline.recipe.labels import folded
from pipeline.settings import Augmentation, Backbone, Count, EachOnce, Name, Precision, Rate, Seeds, Settings, Share

Metric = Literal["accuracy", "dice", "iou"]
CHAMPION_METRICS: Mapping[str, tuple[Metric, ...]] = {"ordinal": ("accuracy",), "segmentation": ("dice", "iou")}
"""By kind of task; the first is the default."""
ClassName = Annotated[str, Field(pattern=r"\S", max_length=64)]
"""As long as the label of a DICOM SEG's segment may be (PS3.5 section 6.2)."""


class Champion(Settings):
    """The criterion by which a task's champion encoder is selected for MLflow's registry (docs/running.md)."""

    metric: Metric
    """Of single images: accuracy of an ordinal task; Dice or IoU, averaged over the classes, of a segmentation."""
    decided_by: Literal["validation"] = "validation"
    """Never the test images: selecting by them would leave no unbiased score."""


class Task(Settings):
    """A downstream task with its hyper-parameters (paper Table A2)."""

    kind: Literal["ordinal", "segmentation"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    """In the order of their values; names differ in more than case; a segmentation's first is background."""
    manifest: str
    """CSV of `image,patient[,split][,source]` and `quality` or `mask`; environment variables as ${NAME}."""
    epochs: Count
    min_steps: Annotated[int, Field(ge=0, validation_alias=AliasChoices("min_steps", "least_steps"))] = 0
    """Minimum number of training steps: with few images an epoch goes through them several times.

    Recipes of earlier versions, and the fingerprints of models, name it `least_steps`.
    """
    batch_size: Count
    learning_rate: Mapping[Backbone, Rate]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of the classifier head; a segmentation has none."""
    augmentation: Augmentation = Augmentation()
    champion: Champion | None = None
    """Default: by accuracy or Dice."""

    def epoch_repeats(self, images: int) -> int:
        """How often an epoch goes through the images; 1 if they do not fill a batch and nothing is trained."""
        steps = self.epochs * (images // self.batch_size)
        return math.ceil(self.min_steps / steps) if 0 < steps < self.min_steps else 1

    @property
    def training(self) -> dict[str, Any]:
        """The settings that determine its models; `least_steps` only if it is set."""
        settings = self.model_dump(mode="json", exclude={"manifest", "champion", "min_steps"})
        return settings | ({"least_steps": self.min_steps} if self.min_steps else {})

    @property
    def champion_metric(self) -> Metric:
        """The metric by which the champion is selected."""
        return self.champion.metric if self.champion else CHAMPION_METRICS[self.kind][0]

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len({folded(name) for name in classes}) < len(classes):
            raise ValueError("a class is named more than once, regardless of case")
        return classes

    @model_validator(mode="after")
    def _the_champion_is_measured_by_its_kind(self) -> "Task":
        allowed = CHAMPION_METRICS[self.kind]
        if self.champion_metric not in allowed:
            raise ValueError(f"champion.metric {self.champion_metric} is none of {', '.join(allowed)}")
        return self


class Downstream(Settings):
    """Fine-tuning of every arm on every task."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1), EachOnce] = PAPER_ARMS
    tasks: Mapping[Name, Task] = {}
    fractions: Annotated[tuple[Share, ...], Field(min_length=1), EachOnce] = (1.0,)
    """Shares of the training images; smaller ones are subsets of larger ones."""
    seeds: Seeds = (0,)
    precision: Precision = "float32"
    """Precision of training steps, as `pretraining.precision`; validation and test are always in float32."""
