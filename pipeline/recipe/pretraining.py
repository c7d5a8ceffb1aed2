"""The section `pretraining`: which encoders there are, and how they are trained.

Settings are those of the registered methods (`pipeline.methods`), and fields of the classes here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from operator import eq
from typing import Annotated, Any, TypeVar

from pydantic import Field, create_model, model_validator
from pydantic.fields import FieldInfo

from pipeline.methods import METHODS, EncoderSettings, Method, ShownLabels
from pipeline.methods.method import IMAGENET, RANDOM
from pipeline.recipe.arms import FROZEN, PAPER_ARMS, encoder_of, is_frozen
from pipeline.settings import Backbone, Count, EachOnce, Name, Seeds, Settings, format_setting, is_none, one_of

_FIRST = {name for arm in PAPER_ARMS for name in METHODS[encoder_of(arm)].settings.model_fields}
"""Settings of the paper's methods. Those of other methods came later and are recorded only if they are not the default,
so that the record of an earlier recipe stays what it was."""


def _field(name: str, field: FieldInfo) -> FieldInfo:
    if name not in _FIRST:
        field = copy(field)
        field.exclude_if = partial(eq, field.default)
    return field


def _unset(field: FieldInfo) -> Any:
    """The default None; recorded only for a setting that is itself recorded at its default."""
    return Field(None, exclude_if=None if field.exclude_if is None else is_none)


_FIELDS = {
    name: _field(name, field)
    for method in METHODS.values()
    for name, field in method.settings.model_fields.items()
    if name not in EncoderSettings.model_fields and not field.exclude
}
_all: dict[str, Any] = {name: (field.annotation, field) for name, field in _FIELDS.items()}
_optional: dict[str, Any] = {
    name: (Annotated[(field.annotation, Field(), *field.metadata)] | None, _unset(field))
    for name, field in _FIELDS.items()
    if any(name in method.varied for method in METHODS.values())
}
_Training: Any = create_model("_Training", __base__=Settings, **_all)
C = TypeVar("C", bound=Any)
_Changes: Any = create_model("_Changes", __base__=Settings, **_optional)


def _with_files(settings: C, change: Callable[[str], str]) -> C:
    """`settings`, of which both sections have these fields, with `change` of the paths in start_from and external."""
    start, external = settings.start_from, settings.external
    moved: C = settings.model_copy(
        update={
            "start_from": start if start in (None, RANDOM, IMAGENET) else change(start),
            "external": external
            and {name: one.model_copy(update={"weights": change(one.weights)}) for name, one in external.items()},
        }
    )
    return moved


_NO_SETTINGS = {"method", "labels", "without_source"}
"""Fields of a variant that are no settings of its method."""
MethodName = Annotated[str, one_of(METHODS)]


class Variant(_Changes):  # type: ignore[misc]
    """A method with a change: a control, or a setting tried. A setting that is None is the recipe's."""

    method: MethodName
    labels: ShownLabels = "own"
    """Shown in place of the weak labels: those of other patients, or the folder of the archive an image is from."""
    without_source: Annotated[Count | None, Field(exclude_if=is_none)] = None
    """Trained without the images of that source: a first-level folder's number by patients, 1 has the most."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it changes."""
        changed: dict[str, Any] = self.model_dump(exclude=_NO_SETTINGS, exclude_none=True)
        return changed

    @model_validator(mode="after")
    def _changes_what_its_method_uses(self) -> "Variant":
        method = METHODS[self.method]
        unused = [name for name in self.settings if name not in method.varied]
        if self.labels not in {"own", *method.controls}:
            unused.append("labels")
        if self.without_source is not None and not method.trains:
            unused.append("without_source")
        if unused:
            raise ValueError(f"{unused[0]} is not a setting of {self.method}")
        if not self.settings and self.labels == "own" and self.without_source is None:
            raise ValueError(f"it changes nothing of {self.method}")
        return self


class Pretraining(_Training):  # type: ignore[misc]
    """Which encoders there are, and how they are trained."""

    backbones: Annotated[tuple[Backbone, ...], Field(min_length=1), EachOnce] = ("vgg16_bn", "resnet50")
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1), EachOnce] = tuple(
        dict.fromkeys(map(encoder_of, PAPER_ARMS))
    )
    variants: Mapping[Name, Variant] = {}
    """Encoders in addition to those of the methods, by name: your own controls."""
    seeds: Seeds = (0,)
    """An encoder is trained with each. Fine-tuning takes them in turn (`Recipe.pretraining_seed`)."""

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders of a backbone and seed: the methods, then the variants."""
        return (*self.methods, *self.variants)

    @property
    def context_encoders(self) -> tuple[str, ...]:
        """Those of `encoders` that inpaint."""
        return tuple(encoder for encoder in self.encoders if self.method_of(encoder).inpaints)

    def method_of(self, encoder: str) -> Method:
        """The method by which the encoder of that name is trained; a method need not be one of `methods`."""
        return METHODS[self.variants[encoder].method if encoder in self.variants else encoder]

    def labels_of(self, encoder: str) -> ShownLabels:
        """The labels that the encoder is shown, if its method is shown any."""
        return self.variants[encoder].labels if encoder in self.variants else "own"

    def left_out_of(self, encoder: str) -> int | None:
        """The number of the source whose images the encoder is not trained on; None: it is trained on all."""
        return self.variants[encoder].without_source if encoder in self.variants else None

    def settings_of(self, encoder: str, seed: int) -> EncoderSettings:
        """The settings of the encoder of that name and seed."""
        settings = self.method_of(encoder).settings
        shared = {name: getattr(self, name) for name in settings.model_fields if name in _FIELDS}
        changed = self.variants[encoder].settings if encoder in self.variants else {}
        return settings(**(shared | changed), seed=seed)

    def with_files(self, change: Callable[[str], str]) -> "Pretraining":
        """The section with the path of every weights file and encoder folder replaced by `change` of it."""
        weights = {backbone: change(path) for backbone, path in self.imagenet_weights.items()}
        variants = {name: _with_files(variant, change) for name, variant in self.variants.items()}
        moved: Pretraining = self.model_copy(update={"imagenet_weights": weights, "variants": variants})
        return _with_files(moved, change)

    @model_validator(mode="after")
    def _variants_are_new(self) -> "Pretraining":
        for name, variant in self.variants.items():
            if encoder_of(name) in METHODS:
                raise ValueError(f"variants: {name} is already the name of an arm")
            if is_frozen(name):
                raise ValueError(f"variants: {name} ends in {FROZEN}, which is for arms whose encoder is frozen")
            same = [field for field, value in variant.settings.items() if getattr(self, field) == value]
            if same:
                value = format_setting(getattr(self, same[0]))
                raise ValueError(f"variants.{name}: {same[0]} is already {value} in the recipe: remove it")
        return self

    @model_validator(mode="after")
    def _folders_differ(self) -> "Pretraining":
        folders = Counter(f"{backbone}_{encoder}" for backbone in self.backbones for encoder in self.encoders)
        if repeated := [folder for folder, times in folders.items() if times > 1]:
            raise ValueError(f"{repeated[0]} would be the encoder of two backbones: rename the variant")
        return self
