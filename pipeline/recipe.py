"""A recipe: everything a methods section would state, as data.

Belongs here: the pydantic models of a recipe's YAML and the reading of one. Not here: branches on which recipe it is.
"""

import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import UserError

Backbone = Literal["vgg16_bn", "resnet50"]
Method = Literal["baseline", "imagenet", "dcm", "ce", "ce_dcm"]
Arm = Literal["baseline", "imagenet", "dcm", "ce", "ce_dcm", "ce_dcm_frozen"]
Probe = Literal["linear", "curvilinear"]

PROBES: tuple[Probe, ...] = ("linear", "curvilinear")
STRIDE = 32  # of the encoders' deepest features: image sides are multiples of it

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Model(BaseModel):
    """Base of every part of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(Model):
    """How the archive is read."""

    frames_per_cine: Count = 1
    """How many frames of a multi-frame instance become images, evenly spaced."""
    b_mode_only: bool = True
    """Leave out frames of colour Doppler and other modes."""
    description_patients: Count = 5
    """A study description is published only when at least so many patients share it; rarer ones stay private."""


class Labels(Model):
    """The label space and how tags become labels (paper section 3.3)."""

    groups: tuple[str, ...] = ("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage")
    probe_models: Mapping[str, Probe] = {"SC6-1": "curvilinear", "SL10-2": "linear", "SL15-4": "linear"}
    """Probes known by name, looked up in TransducerData before any rule."""
    probe_words: Mapping[str, Probe] = {
        "CURVED LINEAR": "curvilinear",
        "CURVILINEAR": "curvilinear",
        "CONVEX": "curvilinear",
        "LINEAR": "linear",
    }
    """Whole words of TransducerType, then TransducerData; the longest that occurs decides."""
    probe_prefixes: Mapping[str, Probe] = {"SC": "curvilinear", "SL": "linear", "C": "curvilinear", "L": "linear"}
    """Letters before the frequency band of a probe's name, such as the L of L14-6Ns; the longest that fits decides."""
    missing: Literal["exclude", "mask"] = "exclude"
    """An image that lacks its groups or its probe: left out of every method alike, or kept with a mask."""

    @property
    def names(self) -> tuple[str, ...]:
        """The label space in its fixed order: the groups, then the probes."""
        return (*self.groups, *PROBES)


class Cohort(Model):
    """How patients are split (paper section 4.2.2)."""

    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Images(Model):
    """The size every image is brought to, in pixels."""

    height: Annotated[int, Field(ge=STRIDE, multiple_of=STRIDE)] = 256
    width: Annotated[int, Field(ge=STRIDE, multiple_of=STRIDE)] = 384


class Augmentation(Model):
    """Random changes to training images; never a vertical flip, since depth is physics."""

    horizontal_flip: bool = True
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Largest shift along either axis, as a share of that side; what is uncovered is black."""


class Pretraining(Model):
    """Pretraining, paper section 4.2 and equations 2 and 3."""

    backbones: Annotated[tuple[Backbone, ...], Field(min_length=1)] = ("vgg16_bn", "resnet50")
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("baseline", "imagenet", "dcm", "ce", "ce_dcm")
    epochs: Count = 200
    batch_size: Count = 32
    learning_rate: Rate = 1e-4
    """Of the context encoder, and of the encoder that predicts metadata (DCM)."""
    discriminator_learning_rate: Rate = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    lambda_adv: Annotated[float, Field(ge=0)] = 0.001
    lambda_rec: Annotated[float, Field(ge=0)] = 0.999
    augmentation: Augmentation = Augmentation()
    imagenet_weights: Mapping[Backbone, str] = {}
    """Local safetensors files of torchvision's ImageNet weights, per backbone; the method is unavailable without."""
    seed: int = 0


class Task(Model):
    """A downstream task with its hyper-parameters (paper Table A2)."""

    kind: Literal["ordinal", "segmentation"]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the classes, in the order of their values; a segmentation's first class is the background."""
    manifest: str
    """CSV of `image,patient[,split]` and `quality` or `mask`; environment variables as ${NAME}."""
    epochs: Count
    batch_size: Count
    learning_rate: Mapping[Backbone, Rate]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of the classifier head; a segmentation has none."""
    augmentation: Augmentation = Augmentation()


class Downstream(Model):
    """Fine-tuning, paper section 4.4."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = (
        "baseline",
        "imagenet",
        "dcm",
        "ce",
        "ce_dcm",
        "ce_dcm_frozen",
    )
    tasks: Mapping[Name, Task] = {}
    fractions: Annotated[tuple[Share, ...], Field(min_length=1)] = (1.0,)
    """Shares of the training images; smaller ones lie inside larger ones."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)


class Evaluation(Model):
    """Bootstrap of the printed mean and deviation (paper Table 2)."""

    resamples: Count = 1000
    resample_share: Share = 0.5
    seed: int = 0


class Recipe(Model):
    """A whole experiment. `name` is also the folder under `experiments/`."""

    name: Name
    archive: Archive = Archive()
    labels: Labels = Labels()
    cohort: Cohort = Cohort()
    images: Images = Images()
    pretraining: Pretraining = Pretraining()
    downstream: Downstream = Downstream()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _every_arm_has_its_method(self) -> "Recipe":
        missing = [arm for arm in self.downstream.arms if method_of(arm) not in self.pretraining.methods]
        if missing:
            raise ValueError(f"downstream.arms names {', '.join(missing)}, which pretraining.methods does not produce")
        for name, task in self.downstream.tasks.items():
            lacking = [b for b in self.pretraining.backbones if b not in task.learning_rate]
            if lacking:
                raise ValueError(f"downstream.tasks.{name}.learning_rate lacks {', '.join(lacking)}")
        return self


def method_of(arm: Arm) -> Method:
    """The pretraining method an arm starts from: `ce_dcm` for the frozen arm, itself otherwise."""
    return "ce_dcm" if arm == "ce_dcm_frozen" else arm


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the project, by name."""
    folder = Path(str(files("recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str, environment: Mapping[str, str] = os.environ) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path.

    `${NAME}` in a manifest's path is replaced from `environment`; relative paths start at the recipe's folder.
    Raises `UserError` with one sentence that names the file and the field.
    """
    path = shipped_recipes().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        known = ", ".join(shipped_recipes())
        raise UserError(f"No recipe {name_or_path!r}: neither one of {known} nor a file.")
    try:
        return _resolved(Recipe.model_validate(_yaml(path)), path, environment)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {_first_problem(error)}.") from None


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"Recipe {path} is not readable YAML: {' '.join(str(error).split())}.") from None


def _first_problem(error: ValidationError) -> str:
    """The first problem of a validation, as `field.path: what is wrong`."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "no such field"
    others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field}: {message}{others}" if field else f"{message}{others}"


def _resolved(recipe: Recipe, path: Path, environment: Mapping[str, str]) -> Recipe:
    """The recipe with every path absolute; one whose variable is not set stays as written until it is needed."""

    def place(text: str) -> str:
        full = re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], match[0]), text)
        return full if "${" in full else str((path.parent / full).resolve())

    tasks = {
        name: task.model_copy(update={"manifest": place(task.manifest)})
        for name, task in recipe.downstream.tasks.items()
    }
    weights = {backbone: place(text) for backbone, text in recipe.pretraining.imagenet_weights.items()}
    return recipe.model_copy(
        update={
            "downstream": recipe.downstream.model_copy(update={"tasks": tasks}),
            "pretraining": recipe.pretraining.model_copy(update={"imagenet_weights": weights}),
        }
    )


def existing_file(text: str, field: str) -> Path:
    """The file a recipe's field names; raises `UserError` where a variable is not set or no file is there."""
    unset = re.search(r"\$\{(\w+)\}", text)
    if unset:
        raise UserError(f"{field} {text} needs the environment variable {unset[1]}, which is not set.")
    if not Path(text).is_file():
        raise UserError(f"{field} {text} does not exist.")
    return Path(text)
