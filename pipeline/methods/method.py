"""What a pretraining method is: the description that its file registers, and the settings that methods share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.methods.shown_labels import ShownLabels
from pipeline.settings import Augmentation, Backbone, Count, Decay, Precision, Rate, Settings, is_none

SelectBy = Literal["loss", "linear_auc"]
_SCORE_EVERY = 5
RANDOM, IMAGENET = "random", "imagenet"
"""What an encoder starts from, if not from another encoder."""


class EncoderSettings(Settings):
    """The settings of one encoder: those of its method, and the seed."""

    seed: int = 0

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """The settings that determine the encoder, as JSON values: part of its fingerprint."""
        return self.model_dump(mode="json")

    @property
    def selected_by_labels(self) -> bool:
        """Whether the archive's labels select the epoch that is kept."""
        return False


class TrainingSettings(EncoderSettings):
    """Settings of every method that trains (paper section 4.2)."""

    epochs: Count = 200
    batch_size: Count = 32
    learning_rate: Rate = 1e-4
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    augmentation: Augmentation = Augmentation()
    precision: Precision = "float32"
    """Of convolutions and matrix products, if the device supports it; weights and losses stay float32."""
    sync_batch_norm: bool = False
    """With several GPUs: batch norm over the images of all of them, not over each one's own."""
    score_every: Annotated[Count, Field(exclude_if=_SCORE_EVERY.__eq__)] = _SCORE_EVERY
    """Number of epochs between two scores of the encoder's features; the last epoch is always scored."""
    select_by: Annotated[SelectBy, Field(exclude_if="loss".__eq__)] = "loss"
    """What selects the epoch that is kept: the method's own loss, or the highest linear AUC of the archive's labels."""
    patience: Annotated[Count | None, Field(exclude_if=is_none)] = None
    """Training ends after this number of epochs that could be kept and are no better than the best; None: never."""
    start_from: Annotated[str, Field(min_length=1, exclude_if=RANDOM.__eq__)] = RANDOM
    """Initial weights: `random`, `imagenet` (of `imagenet_weights`), or those in the folder of an encoder."""
    imagenet_weights: Annotated[Mapping[Backbone, str], Field(exclude=True)] = {}
    """The recipe's `imagenet_weights`, if it starts from them."""

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """All settings; which epochs are scored only if a score selects the one that is kept."""
        settings = super().decisive(backbone)
        return {name: settings[name] for name in settings if name != "score_every" or self.selected_by_labels}

    @property
    def selected_by_labels(self) -> bool:
        """As in `EncoderSettings`."""
        return self.select_by != "loss"


_VARIED = {"epochs", "learning_rate", "start_from"}


@dataclass(frozen=True)
class Method:
    """A pretraining method. `trainer` names its class as `module:class`, a `pipeline.pretraining.job.MethodRun`."""

    name: str
    label: str
    """In tables and figures."""
    description: str
    """In Dagster's graph."""
    card: str
    """First sentence of the model card."""
    trainer: str
    settings: type[EncoderSettings] = EncoderSettings
    labelled: bool = False
    """Whether it learns from the pool's labels."""
    controls: tuple[ShownLabels, ...] = ()
    """Labels that a variant may show it in place of the pool's."""
    paired: bool = False
    """Whether it learns from which images are of one patient or file."""
    inpaints: bool = False
    """Whether its folder holds a context encoder: figures and errors of inpainting apply."""
    files: tuple[str, ...] = ()
    """Files in an encoder's folder beside those of every method."""
    curve_titles: Mapping[str, str] = field(default_factory=dict)
    """Metrics of its curves that reports show, with the titles of their panels."""

    @property
    def trains(self) -> bool:
        """Whether an encoder is trained: costs and forecasts apply."""
        return issubclass(self.settings, TrainingSettings)

    @property
    def varied(self) -> set[str]:
        """The settings that a variant may change: all of the method's own, and if it trains, three that all share."""
        own = self.settings.model_fields.keys() - TrainingSettings.model_fields
        return own | _VARIED if self.trains else own

    def load_trainer(self) -> Any:
        """Import the class that `trainer` names."""
        module, _, name = self.trainer.partition(":")
        return getattr(import_module(module), name)


METHODS: dict[str, Method] = {}
"""All methods, by name."""


def register(method: Method) -> Method:
    """Add `method` to `METHODS`; returns it."""
    METHODS[method.name] = method
    return method
