"""A recipe: everything a methods section would state, as data.

Belongs here: the pydantic models of a recipe's YAML and the reading of one. Not here: branches on which recipe it is.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UserError
from pipeline.label_fields import BESIDE_LABELS, NUMBER_FIELDS, TEXT_FIELDS, LabelField
from pipeline.plain_yaml import read_yaml

T = TypeVar("T")
Backbone = Literal["vgg16_bn", "resnet50"]
Method = Literal["baseline", "imagenet", "dcm", "ce", "ce_dcm"]
Arm = str
"""A method or variant of `pretraining`, as the recipe names it; with `FROZEN` after it, with its encoder frozen."""
ShownLabels = Literal["own", "shuffled", "source"]
Probe = Literal["linear", "curvilinear"]
Precision = Literal["float32", "bfloat16"]
Metric = Literal["accuracy", "dice", "iou"]

FROZEN = "_frozen"
"""Ends the name of an arm that leaves its encoder as it is: `ce_dcm_frozen` starts from `ce_dcm` (the paper's +F)."""
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
PROBES: tuple[Probe, ...] = ("linear", "curvilinear")
CHAMPION_METRICS: Mapping[str, tuple[Metric, ...]] = {"ordinal": ("accuracy",), "segmentation": ("dice", "iou")}
"""By kind of task."""
STRIDE = 32  # of the encoders' deepest features: image sides are multiples of it

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Rate = Annotated[float, Field(gt=0)]
Likelihood = Annotated[float, Field(ge=0, le=1)]


Seed = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=STRIDE, le=8192, multiple_of=STRIDE)]
"""Of an image, in pixels."""


def _all_differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is named more than once")
    return seeds


def _each_once(named: tuple[T, ...] | None) -> tuple[T, ...] | None:
    repeated = [one for one, times in Counter(named or ()).items() if times > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} is named more than once")
    return named


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_all_differ)]
Weight = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
"""Part of a folder's name, which file systems bound to 255 bytes, with others of its kind."""
LabelName = Annotated[str, Field(pattern=r"^\w([\w .:/-]*\w)?$", max_length=64)]
"""A column of the tables and a metric's name in MLflow, which takes no other signs."""
Value = Annotated[str, Field(pattern=r"\S")]
ClassName = Annotated[str, Field(pattern=r"\S", max_length=64)]
"""The label of a DICOM SEG's segment holds as much (PS3.5 section 6.2)."""
ModalityCode = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")]
"""A value of Modality (0008,0060), PS3.3 section C.7.3.1.1.1."""


class Model(BaseModel):
    """Base of every part of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Archive(Model):
    """How the archive is read."""

    modalities: Annotated[tuple[ModalityCode, ...], Field(min_length=1)] = ("US",)
    """Instances of which modalities are records; all others are rejected."""
    frames_per_cine: Count = 1
    """How many frames of a multi-frame instance become images, evenly spaced."""
    b_mode_only: bool = True
    """Leave out frames of colour Doppler and other modes of ultrasound."""
    description_patients: Count = 5
    """A study description is published only when at least so many patients share it; rarer ones stay private."""


class StudyGroupsSource(Model):
    """Labels from StudyDescription, by the radiologist's table (SONOTAG_STUDY_GROUPS; paper section 3.3)."""

    kind: Literal["study_groups"] = "study_groups"
    groups: Annotated[tuple[LabelName, ...], Field(min_length=1)] = (
        *("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage"),
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return self.groups


class ProbeSource(Model):
    """The labels linear and curvilinear, from TransducerType and TransducerData (paper section 3.3)."""

    kind: Literal["probe"] = "probe"
    models: Mapping[str, Probe] = {"SC6-1": "curvilinear", "SL10-2": "linear", "SL15-4": "linear"}
    """Probes known by name, looked up in TransducerData before any rule."""
    words: Mapping[str, Probe] = {
        "CURVED LINEAR": "curvilinear",
        "CURVILINEAR": "curvilinear",
        "CONVEX": "curvilinear",
        "LINEAR": "linear",
    }
    """Whole words of TransducerType, then TransducerData; the longest that occurs decides."""
    prefixes: Mapping[str, Probe] = {"SC": "curvilinear", "SL": "linear", "C": "curvilinear", "L": "linear"}
    """Letters before the frequency band of a probe's name, such as the L of L14-6Ns; the longest that fits decides."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return PROBES


class ValuesSource(Model):
    """Labels from what a text field of the header says, such as BodyPartExamined."""

    kind: Literal["values"] = "values"
    field: str
    """Keyword of the field: one of `pipeline.label_fields.TEXT_FIELDS`."""
    labels: Annotated[Mapping[LabelName, Annotated[tuple[Value, ...], Field(min_length=1)]], Field(min_length=1)]
    """Each label with the values that mean it, whatever their case and spaces; one value may mean several labels."""

    @field_validator("field")
    @classmethod
    def _is_allowed(cls, field: str) -> str:
        return _one_of(TEXT_FIELDS, field)

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return tuple(self.labels)


class BinsSource(Model):
    """Labels from ranges of a number in the header, such as SliceThickness."""

    kind: Literal["bins"] = "bins"
    field: str
    """Keyword of the field: one of `pipeline.label_fields.NUMBER_FIELDS`."""
    edges: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]
    """Ascending, in the field's unit. A number that equals an edge belongs to the range above it."""
    labels: tuple[LabelName, ...]
    """One more than edges: below the first, from each edge up to the next, and from the last one on."""

    @field_validator("field")
    @classmethod
    def _is_allowed(cls, field: str) -> str:
        return _one_of(NUMBER_FIELDS, field)

    @model_validator(mode="after")
    def _labels_fit_the_edges(self) -> "BinsSource":
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges must ascend")
        if len(self.labels) != len(self.edges) + 1:
            raise ValueError(f"labels must be one more than edges, {len(self.edges) + 1}, and are {len(self.labels)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of this source."""
        return self.labels


Source = StudyGroupsSource | ProbeSource | ValuesSource | BinsSource


def folded(name: str) -> str:
    """A label's name as names are compared: whatever its case and spaces."""
    return " ".join(name.casefold().split())


def _one_of(allowed: Mapping[str, LabelField], field: str) -> str:
    if field not in allowed:
        raise ValueError(f"{field!r} is none of {', '.join(allowed)}")
    return field


class Labels(Model):
    """The label space and how tags become labels (paper section 3.3)."""

    sources: tuple[Annotated[Source, Field(discriminator="kind")], ...] = (StudyGroupsSource(), ProbeSource())
    """In the order of the label space."""
    missing: Literal["exclude", "mask"] = "exclude"
    """An image of which a source leaves its labels open: left out of every method alike, or kept with a mask."""
    largest_unmapped_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Of the records; where more carry a study description that nobody has reviewed, a check warns."""

    @property
    def names(self) -> tuple[str, ...]:
        """The label space in its fixed order."""
        return tuple(name for source in self.sources for name in source.names)

    @property
    def groups(self) -> tuple[str, ...]:
        """The labels that the radiologist's table gives; none where no source asks it."""
        return tuple(name for s in self.sources if isinstance(s, StudyGroupsSource) for name in s.groups)

    @model_validator(mode="after")
    def _every_label_has_one_source(self) -> "Labels":
        if not self.sources:
            raise ValueError("sources is empty")
        repeated = [name for name, count in Counter(map(folded, self.names)).items() if count > 1]
        if repeated:
            raise ValueError(f"sources name {', '.join(repeated)} more than once, whatever the case")
        taken = [name for name in self.names if folded(name) in BESIDE_LABELS]
        if taken:
            raise ValueError(f"a label cannot be called {taken[0]}: the tables have such a column")
        if sum(isinstance(source, StudyGroupsSource) for source in self.sources) > 1:
            raise ValueError("sources hold study_groups more than once")
        return self


class Cohort(Model):
    """How patients are split (paper section 4.2.2)."""

    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Images(Model):
    """The size every image is brought to, in pixels."""

    height: Side = 256
    width: Side = 384


class Augmentation(Model):
    """Random changes to training images; never a vertical flip, since depth is physics."""

    horizontal_flip: bool = True
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Largest shift along either axis, as a share of that side; what is uncovered is black."""


class Training(Model):
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


def format_setting(value: float | bool) -> str:
    """A setting's value as it is printed."""
    return f"{value:g}" if not isinstance(value, bool) else "on" if value else "off"


class Variant(Model):
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

    backbones: Annotated[tuple[Backbone, ...], Field(min_length=1), AfterValidator(_each_once)] = (
        "vgg16_bn",
        "resnet50",
    )
    methods: Annotated[tuple[Method, ...], Field(min_length=1), AfterValidator(_each_once)] = (
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


class Champion(Model):
    """What decides which encoder is a task's champion in MLflow's registry (docs/running.md)."""

    metric: Metric
    """Of single images: accuracy of an ordinal task; Dice or IoU, averaged over the classes, of a segmentation."""
    decided_by: Literal["validation"] = "validation"
    """Never the test images: of those that decided, no honest number can be reported."""


class Task(Model):
    """A downstream task with its hyper-parameters (paper Table A2)."""

    kind: Literal["ordinal", "segmentation"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    """In the order of their values, and unlike each other in more than case; a segmentation's first is background."""
    manifest: str
    """CSV of `image,patient[,split]` and `quality` or `mask`; environment variables as ${NAME}."""
    epochs: Count
    least_steps: Annotated[int, Field(ge=0)] = 0
    """A model trains for so many steps at least: an epoch goes through few images several times."""
    batch_size: Count
    learning_rate: Mapping[Backbone, Rate]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of the classifier head; a segmentation has none."""
    augmentation: Augmentation = Augmentation()
    champion: Champion | None = None
    """By accuracy or Dice where the recipe does not say."""

    def passes_of(self, images: int) -> int:
        """How often an epoch goes through so many images; once also where they fill no batch and nothing is trained."""
        steps = self.epochs * (images // self.batch_size)
        return math.ceil(self.least_steps / steps) if 0 < steps < self.least_steps else 1

    @property
    def training(self) -> dict[str, Any]:
        """What decides how its models are trained, beside the data; `least_steps` only where it asks for any."""
        unused = {"manifest", "champion"} | ({"least_steps"} if not self.least_steps else set())
        return self.model_dump(mode="json", exclude=unused)

    @property
    def champion_metric(self) -> Metric:
        """What the champion is the best in."""
        return self.champion.metric if self.champion else CHAMPION_METRICS[self.kind][0]

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len({folded(name) for name in classes}) < len(classes):
            raise ValueError("a class is named more than once, whatever the case")
        return classes

    @model_validator(mode="after")
    def _the_champion_is_measured_by_its_kind(self) -> "Task":
        allowed = CHAMPION_METRICS[self.kind]
        if self.champion_metric not in allowed:
            raise ValueError(f"champion.metric {self.champion_metric} is none of {', '.join(allowed)}")
        return self


class Downstream(Model):
    """Fine-tuning, paper section 4.4."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1), AfterValidator(_each_once)] = (
        "baseline",
        "imagenet",
        "dcm",
        "ce",
        "ce_dcm",
        "ce_dcm_frozen",
    )
    tasks: Mapping[Name, Task] = {}
    fractions: Annotated[tuple[Share, ...], Field(min_length=1), AfterValidator(_each_once)] = (1.0,)
    """Shares of the training images; smaller ones lie inside larger ones."""
    seeds: Seeds = (0,)
    precision: Precision = "float32"
    """In which training steps compute, as `pretraining.precision`; validation and test are always in float32."""


class Comparison(Model):
    """Two arms whose difference is tested, on every task."""

    arm: Arm
    against: Arm
    backbones: Annotated[tuple[Backbone, ...] | None, Field(min_length=1), AfterValidator(_each_once)] = None
    """On which backbones; None: on every one of the recipe."""

    def repeats(self, other: "Comparison") -> bool:
        """Whether both test the same two arms on the same backbone."""
        if {self.arm, self.against} != {other.arm, other.against}:
            return False
        return self.backbones is None or other.backbones is None or bool({*self.backbones} & {*other.backbones})

    @model_validator(mode="after")
    def _arms_differ(self) -> "Comparison":
        if self.arm == self.against:
            raise ValueError(f"{self.arm} is compared with itself")
        return self


class Evaluation(Model):
    """Bootstrap of the printed deviation (paper Table 2), tests of significance (docs/evaluation.md)."""

    resamples: Annotated[int, Field(ge=1, le=100_000)] = 1000
    resample_share: Share = 0.5
    comparisons: tuple[Comparison, ...] = (Comparison(arm="ce_dcm", against="ce"),)
    """The family of tests: each of these on every task and its backbones; in each regime its p-values are adjusted."""
    test_resamples: Annotated[int, Field(ge=20_000, le=10_000_000)] = 20_000
    """Resamples of a test of significance: the smallest p-value is one over one more."""
    seed: Seed = 0

    @field_validator("comparisons")
    @classmethod
    def _are_named_once(cls, comparisons: tuple[Comparison, ...]) -> tuple[Comparison, ...]:
        repeated = [c for i, c in enumerate(comparisons) if any(c.repeats(other) for other in comparisons[:i])]
        if repeated:
            raise ValueError(f"{repeated[0].arm} and {repeated[0].against} are compared more than once")
        return comparisons


class Automation(Model):
    """When work starts by itself, where a person has switched that on in Dagster (docs/running.md)."""

    settle_minutes: Rate = 5.0
    """The archive is read once nothing in it has changed for so long."""
    longest_wait_hours: Rate = 6.0
    """An archive that never pauses is read after so long."""
    new_patients: Count = 50
    """Encoders are trained anew once so many patients have arrived that they have not seen."""


class Amount(Model):
    """So many images of so many patients."""

    images: Count
    patients: Count

    @model_validator(mode="after")
    def _everybody_has_an_image(self) -> "Amount":
        if self.images < self.patients:
            raise ValueError(f"{self.images} images are too few for {self.patients} patients")
        return self


class LabelledAmount(Model):
    """A labelled set's three splits."""

    train: Amount
    val: Amount
    test: Amount


class TagNoise(Model):
    """How often a phantom's tags are wrong: shares of its studies, where nothing else is said.

    Above 0, a rate hits one at least. Of the first five, a study is hit by one at most.
    """

    other_organ: Likelihood = 0.02
    """An examination that the study groups do not know, such as of a shoulder."""
    wrong_protocol: Likelihood = 0.05
    """The description of another examination, of other groups."""
    misspelt: Likelihood = 0.03
    abbreviated: Likelihood = 0.03
    """A wording of the house's own, which the study groups do not know."""
    no_description: Likelihood = 0.02
    swapped_side: Likelihood = 0.1
    """LEFT for RIGHT or the other way, of the studies whose description names a side."""
    missing_probe: Likelihood = 0.04
    """Neither TransducerType nor TransducerData."""
    foreign_probe: Likelihood = 0.02
    """A phased array is named that was not used; of the images."""

    @model_validator(mode="after")
    def _a_study_has_one_description(self) -> "TagNoise":
        shares = (self.other_organ, self.wrong_protocol, self.misspelt, self.abbreviated, self.no_description)
        if sum(shares) > 1:
            raise ValueError("other_organ, wrong_protocol, misspelt, abbreviated and no_description exceed 1 together")
        return self


class Defects(Model):
    """How many defective files of each kind a phantom's archive holds, as shares of its good images.

    Above 0, there is one at least.
    """

    truncated_header: Likelihood = 0.004
    truncated_pixels: Likelihood = 0.004
    lying_dimensions: Likelihood = 0.002
    """More rows than there are pixels for."""
    enormous_dimensions: Likelihood = 0.002
    """A few kilobytes that say to be half a gigabyte of pixels."""
    wrong_meta: Likelihood = 0.002
    """A transfer syntax that the pixels are not in."""
    broken_jpeg: Likelihood = 0.002
    colour_doppler: Likelihood = 0.002
    note: Likelihood = 0.002
    """A text file."""
    computed_tomography: Likelihood = 0.002
    report: Likelihood = 0.002
    """A structured report."""
    directory: Likelihood = 0.002
    """A DICOMDIR."""
    duplicate: Likelihood = 0.004
    conflict: Likelihood = 0.002
    """Two files that claim one instance, with different pixels."""
    zipped: Likelihood = 0.002
    """A zip file with a note and two images in it, which are as good as any."""


class Phantom(Model):
    """The phantom clinic (docs/phantom.md): its size, how noisy its tags are, which files are defective."""

    archive: Amount = Amount(images=434, patients=42)
    quality: LabelledAmount = LabelledAmount(
        train=Amount(images=120, patients=24), val=Amount(images=30, patients=6), test=Amount(images=50, patients=10)
    )
    liver_kidney: LabelledAmount = LabelledAmount(
        train=Amount(images=72, patients=18), val=Amount(images=16, patients=4), test=Amount(images=36, patients=9)
    )
    thyroid: LabelledAmount = LabelledAmount(
        train=Amount(images=72, patients=18), val=Amount(images=16, patients=4), test=Amount(images=36, patients=9)
    )
    tag_noise: TagNoise = TagNoise()
    defects: Defects = Defects()


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
    automation: Automation = Automation()
    phantom: Phantom = Phantom()

    @model_validator(mode="after")
    def _every_arm_has_its_method(self) -> "Recipe":
        missing = [arm for arm in self.downstream.arms if encoder_of(arm) not in self.pretraining.encoders]
        if missing:
            which = "which neither pretraining.methods nor pretraining.variants produces"
            raise ValueError(f"downstream.arms names {', '.join(missing)}, {which}")
        for name, task in self.downstream.tasks.items():
            lacking = [b for b in self.pretraining.backbones if b not in task.learning_rate]
            if lacking:
                raise ValueError(f"downstream.tasks.{name}.learning_rate lacks {', '.join(lacking)}")
        return self

    @model_validator(mode="after")
    def _comparisons_are_of_its_arms(self) -> "Recipe":
        named = {arm for c in self.evaluation.comparisons for arm in (c.arm, c.against)}
        missing = sorted(named - set(self.downstream.arms))
        if missing and "comparisons" in self.evaluation.model_fields_set:
            raise ValueError(f"evaluation.comparisons names {', '.join(missing)}, which downstream.arms does not train")
        backbones = {backbone for c in self.evaluation.comparisons for backbone in c.backbones or ()}
        if lacking := sorted(backbones - {*self.pretraining.backbones}):
            which = "which pretraining.backbones does not train"
            raise ValueError(f"evaluation.comparisons names {', '.join(lacking)}, {which}")
        return self

    @model_validator(mode="after")
    def _every_encoder_is_fine_tuned_as_often(self) -> "Recipe":
        tuned, trained = len(self.downstream.seeds), len(self.pretraining.seeds)
        if self.downstream.tasks and tuned % trained:
            raise ValueError(f"downstream.seeds are {tuned}, which is no multiple of the {trained} pretraining.seeds")
        return self

    def pretraining_seed(self, seed: int) -> int:
        """Seed of the encoder from which the models of that fine-tuning seed start: `pretraining.seeds` in turn."""
        seeds = self.pretraining.seeds
        return seeds[self.downstream.seeds.index(seed) % len(seeds)]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """What is compared: the default comparison is left out where the recipe does not train its arms."""
        arms = self.downstream.arms
        return tuple(c for c in self.evaluation.comparisons if c.arm in arms and c.against in arms)

    @property
    def compared(self) -> tuple[tuple[Comparison, Backbone], ...]:
        """Every comparison with each backbone on which it is tested."""
        every = self.pretraining.backbones
        return tuple((c, b) for c in self.comparisons for b in every if c.backbones is None or b in c.backbones)


def encoder_of(arm: Arm) -> str:
    """The encoder that an arm starts from, by name: `ce_dcm` for `ce_dcm_frozen`, that of its own name otherwise."""
    return arm.removesuffix(FROZEN)


def is_frozen(arm: Arm) -> bool:
    """Whether the arm leaves its encoder as it is."""
    return arm.endswith(FROZEN)


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the project, by name."""
    folder = Path(str(files("recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str, environment: Mapping[str, str] = os.environ) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path.

    `${NAME}` in a manifest's path is replaced from `environment`; relative paths start at the recipe's folder.
    Types are those that are written: neither `yes` nor "3" is a number. Raises `UserError` with one sentence that names
    the file and the line or the field.
    """
    path = shipped_recipes().get(name_or_path, Path(name_or_path))
    if not _is_file(path):
        known = ", ".join(shipped_recipes())
        raise UserError(f"No recipe {name_or_path[:200]!r}: neither one of {known} nor a file.")
    try:
        return _resolved(Recipe.model_validate(read_yaml("Recipe", path), strict=True), path, environment)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {_first_problem(error)}.") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that cannot be entered
        return False


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
        return full if "${" in full else os.path.realpath(path.parent / full)

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
    if not _is_file(Path(text)):
        raise UserError(f"{field} {text} does not exist.")
    return Path(text)
