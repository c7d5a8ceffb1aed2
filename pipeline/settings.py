"""Base class and value types of settings that a person writes.

Not here: a recipe's sections (`pipeline.recipe`).
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

T = TypeVar("T")
Precision = Literal["float32", "bfloat16"]

STRIDE = 32
"""Of the encoders' deepest features: the sides of images are multiples of it."""

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Rate = Annotated[float, Field(gt=0)]
Likelihood = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(ge=0, lt=0.5)]
"""A share below a half: two of them leave something."""
GreyLevel = Annotated[float, Field(ge=0, le=255)]
"""A mean of grey levels."""
GreySpread = Annotated[float, Field(ge=1e-3, le=127.5)]
"""A standard deviation of grey levels: at most that of half black, half white; below 0.001 no image varies."""
Seed = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=STRIDE, le=8192, multiple_of=STRIDE)]
"""Of an image, in pixels."""
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
"""Part of a folder's name, together with others of its kind; file systems limit the whole to 255 bytes."""

TORCHVISION_BACKBONES = ("vgg16_bn", "resnet50", "resnet18")
"""The paper's two (section 4.2.1) and a small one, which are torchvision's; all others are timm's."""


def _architecture(name: str) -> str:
    if "." in name:
        raise ValueError(f"{name!r} names weights: name the architecture alone, {name.partition('.')[0]!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]{,63}", name):
        raise ValueError(
            f"{name!r} is no architecture: {', '.join(TORCHVISION_BACKBONES)}, or the name of one of timm's"
        )
    return name


Backbone = Annotated[str, AfterValidator(_architecture)]
"""An architecture: one of `TORCHVISION_BACKBONES`, or one of timm's, which `pipeline.networks.encoders` looks up."""


def _each_once(named: tuple[T, ...] | None) -> tuple[T, ...] | None:
    repeated = [one for one, times in Counter(named or ()).items() if times > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} is named more than once")
    return named


def is_none(value: object) -> bool:
    """Whether a setting has no value: one that came later (`Field(exclude_if=is_none)`) is then not recorded."""
    return value is None


EachOnce = AfterValidator(_each_once)
"""A validator of tuples: no value repeats."""
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), EachOnce]


def one_of(allowed: Collection[str]) -> AfterValidator:
    """A validator of names: each is in `allowed`."""

    def check(name: str) -> str:
        if name not in allowed:
            raise ValueError(f"{name!r} is none of {', '.join(allowed)}")
        return name

    return AfterValidator(check)


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Augmentation(Settings):
    """Random changes to training images; never a vertical flip, since depth is physics."""

    horizontal_flip: bool = True
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Largest shift along either axis, as a share of that side; uncovered pixels become black."""


class Views(Settings):
    """Random changes that make the two views of an image; never a vertical flip, and black stays black."""

    view_crop: Share = 0.4
    """Smallest share of an image's area that a view keeps, of the same aspect; 1 keeps all of it."""
    view_flip: bool = True
    """Flip half of the views left to right."""
    view_gain: Part = 0.3
    """Largest change of brightness, as a share of it."""
    view_depth_gain: Part = 0.3
    """The same at top and bottom, in opposite directions, as time gain compensation does."""
    view_gamma: Weight = 0.5
    """Grey levels from 0 to 1 are raised to a power between 1 / (1 + this) and 1 + this."""
    view_speckle: Part = 0.15
    """Largest deviation of multiplicative noise."""
    view_shadow: Likelihood = 0.3
    """Likelihood of an acoustic shadow: beams that are darker below a random depth."""


def first_problem(error: ValidationError, section: str = "") -> str:
    """The first problem of a validation, as `section.field: what is wrong`."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, [*filter(None, [section]), *problem["loc"]]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "no such field"
    others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field}: {message}{others}" if field else f"{message}{others}"


def format_setting(value: Any) -> str:
    """The value of a setting as tables print it: of paths, which can contain names, the last part."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):  # the external encoder of each backbone
        return ", ".join(dict.fromkeys(format_setting(one["weights"]) for one in value.values()))
    return value.rpartition("/")[2] if isinstance(value, str) else f"{value:g}"
