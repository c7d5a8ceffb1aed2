"""What a pretraining method is: the description that its file registers, and the settings that methods share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pipeline.methods.shown_labels import ShownLabels
from pipeline.settings import Augmentation, Backbone, Count, Decay, Precision, Rate, Settings


class EncoderSettings(Settings):
    """The settings of one encoder: those of its method, and the seed."""

    seed: int = 0

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """The settings that determine the encoder, as JSON values: part of its fingerprint."""
        return self.model_dump(mode="json")


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


_VARIED = {"epochs", "learning_rate"}


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
        """The settings that a variant may change: epochs, learning rate, and all of the method's own."""
        return _VARIED | (self.settings.model_fields.keys() - TrainingSettings.model_fields) if self.trains else set()

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
