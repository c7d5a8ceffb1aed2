"""The section `pretraining`: which encoders there are, and how they are trained."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field, model_validator

from pipeline.recipe.arms import FROZEN, encoder_of, is_frozen
from pipeline.settings import (
    Augmentation,
    Backbone,
    Count,
    Decay,
    EachOnce,
    Name,
    Precision,
    Rate,
    Seeds,
    Settings,
    Weight,
    format_setting,
)

Method = Literal["baseline", "imagenet", "dcm", "ce", "ce_dcm"]
ShownLabels = Literal["own", "shuffled", "source"]

TRAINED: tuple[Method, ...] = ("dcm", "ce", "ce_dcm")
"""Methods that train an encoder."""
LABELLED: tuple[Method, ...] = ("dcm", "ce_dcm")
"""Methods that are shown labels."""
INPAINTING: tuple[Method, ...] = ("ce", "ce_dcm")
"""Methods that train a context encoder."""
_OF_CONTEXT_ENCODERS = ("discriminator_learning_rate", "discriminator_batch_norm", "lambda_adv", "lambda_rec")
_CHANGES: Mapping[Method, frozenset[str]] = {
    "baseline": frozenset(),
    "imagenet": frozenset(),
    "dcm": frozenset({"labels", "epochs", "learning_rate"}),
    "ce": frozenset({"epochs", "learning_rate", *_OF_CONTEXT_ENCODERS}),
    "ce_dcm": frozenset({"labels", "epochs", "learning_rate", *_OF_CONTEXT_ENCODERS}),
}
"""What a variant of each method can change: the rest means nothing to it."""


class Training(Settings):
    """How an encoder is trained, whichever: paper section 4.2 and equations 2 and 3."""

    epochs: Count = 200
    batch_size: Count = 32
    learning_rate: Rate = 1e-4
    """Of the context encoder, and of the encoder that predicts metadata (DCM)."""
    discriminator_learning_rate: Rate = 1e-5
    discriminator_batch_norm: bool = True
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    lambda_adv: Weight = 0.001
    lambda_rec: Weight = 0.999
    augmentation: Augmentation = Augmentation()
    precision: Precision = "float32"
    """In which convolutions and matrix products compute, where the device can; weights and losses stay float32."""
    sync_batch_norm: bool = False
    """With several GPUs: batch norm over the images of all of them, in place of each one's own."""
    imagenet_weights: Mapping[Backbone, str] = {}
    """Local safetensors files of torchvision's ImageNet weights, per backbone; the method is unavailable without."""


class EncoderSettings(Training):
    """The settings of a single encoder: a recipe's, with one of its seeds and the changes of its variant."""

    seed: int = 0


class Variant(Settings):
    """A method with a change: a control, or a setting tried. What is None is as the recipe says."""

    method: Method
    labels: ShownLabels = "own"
    """Shown in place of the weak labels: those of other patients, or which folder of the archive an image is from."""
    epochs: Count | None = None
    learning_rate: Rate | None = None
    discriminator_learning_rate: Rate | None = None
    discriminator_batch_norm: bool | None = None
    lambda_adv: Weight | None = None
    lambda_rec: Weight | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it changes."""
        return self.model_dump(exclude={"method", "labels"}, exclude_none=True)

    @model_validator(mode="after")
    def _changes_what_its_method_uses(self) -> "Variant":
        changed = [*self.settings, *(["labels"] if self.labels != "own" else [])]
        if not changed:
            raise ValueError(f"it changes nothing of {self.method}")
        unused = [name for name in changed if name not in _CHANGES[self.method]]
        if unused:
            raise ValueError(f"{unused[0]} means nothing to {self.method}")
        return self


class Pretraining(Training):
    """Pretraining: which encoders there are, and how they are trained."""

    backbones: Annotated[tuple[Backbone, ...], Field(min_length=1), EachOnce] = ("vgg16_bn", "resnet50")
    methods: Annotated[tuple[Method, ...], Field(min_length=1), EachOnce] = (
        *("baseline", "imagenet", "dcm", "ce", "ce_dcm"),
    )
    variants: Mapping[Name, Variant] = {}
    """Encoders beside those of the methods, by name: controls of one's own."""
    seeds: Seeds = (0,)
    """An encoder is trained with each. Fine-tuning takes them in turn (`Recipe.pretraining_seed`)."""

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders of a backbone and seed: the methods, then the variants."""
        return (*self.methods, *self.variants)

    @property
    def context_encoders(self) -> tuple[str, ...]:
        """Those of `encoders` that inpaint."""
        return tuple(encoder for encoder in self.encoders if self.method_of(encoder) in INPAINTING)

    def method_of(self, encoder: str) -> Method:
        """The method by which the encoder of that name is trained; a method need not be one of `methods`."""
        return self.variants[encoder].method if encoder in self.variants else cast(Method, encoder)

    def labels_of(self, encoder: str) -> ShownLabels:
        """The labels that the encoder is shown, where its method is shown any."""
        return self.variants[encoder].labels if encoder in self.variants else "own"

    def settings_of(self, encoder: str, seed: int) -> EncoderSettings:
        """The settings of the encoder of that name and seed."""
        shared = {name: getattr(self, name) for name in Training.model_fields}
        changed = self.variants[encoder].settings if encoder in self.variants else {}
        return EncoderSettings(**(shared | changed), seed=seed)

    @model_validator(mode="after")
    def _variants_are_new(self) -> "Pretraining":
        for name, variant in self.variants.items():
            if encoder_of(name) in get_args(Method):
                raise ValueError(f"variants: {name} is the name of an arm that there is anyway")
            if is_frozen(name):
                raise ValueError(f"variants: {name} ends in {FROZEN}, which is for arms whose encoder is frozen")
            same = [field for field, value in variant.settings.items() if getattr(self, field) == value]
            if same:
                raise ValueError(f"variants.{name}: {same[0]} is {format_setting(getattr(self, same[0]))} anyway")
        return self
