"""Names and numbers as reports print them: arms, differences, backbones, tasks and metrics."""

from collections.abc import Mapping

from pipeline.methods import METHODS, SHOWN_LABELS
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm, encoder_of, is_frozen
from pipeline.settings import Backbone, format_setting

_BACKBONE_LABELS: Mapping[Backbone, str] = {
    "vgg16_bn": "VGG16-BN",
    "resnet50": "ResNet-50",
    "resnet18": "ResNet-18",
}
KIND_LABELS: Mapping[str, str] = {"ordinal": "ordinal classification", "segmentation": "segmentation"}
METRIC_WORDS: Mapping[str, str] = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "auc": "AUC"}
"""Printed form of the first word of a metric's name; files keep the plain name."""


def backbone_label(backbone: Backbone) -> str:
    """The printed name of a backbone: the paper's name, or timm's."""
    return _BACKBONE_LABELS.get(backbone, backbone)


def arm_label(recipe: Recipe, arm: Arm) -> str:
    """The printed name of an arm or encoder: the paper's name, or a variant's method followed by its changes."""
    return ", ".join(_method_and_changes(recipe, arm))


def pair_label(recipe: Recipe, arm: Arm, against: Arm) -> str:
    """The printed name of a difference, "CE+DCM − CE"; changes that both arms share are printed once, at the end."""
    (first, *changes), (second, *others) = _method_and_changes(recipe, arm), _method_and_changes(recipe, against)
    if changes and changes == others:
        return f"{first} − {second}, both {', '.join(changes)}"
    return f"{arm_label(recipe, arm)} − {arm_label(recipe, against)}"


def _method_and_changes(recipe: Recipe, arm: Arm) -> list[str]:
    encoder, frozen = encoder_of(arm), "+F" if is_frozen(arm) else ""
    variant = recipe.pretraining.variants.get(encoder)
    if variant is None:
        return [f"{METHODS[encoder].label}{frozen}"]
    shown = [SHOWN_LABELS[variant.labels].label] if variant.labels != "own" else []
    if variant.without_source is not None:
        shown.append(f"without source {variant.without_source}")
    changes = [f"{name} {format_setting(value)}" for name, value in variant.settings.items()]
    return [f"{METHODS[variant.method].label}{frozen}", *shown, *changes]


def task_label(name: str) -> str:
    """The printed name of a task: `liver_kidney` is "Liver kidney"."""
    return name.replace("_", " ").capitalize()


def metric_label(name: str) -> str:
    """The printed name of a metric: `hd95 (pixels) liver` is "HD95 (pixels) liver"."""
    word, *rest = name.split(" ", 1)
    return " ".join([METRIC_WORDS.get(word, word), *rest])


def percent(fraction: float) -> str:
    """A share of the training images as it is printed: 0.05 is "5 %"."""
    return f"{fraction * 100:g} %"


def signed(number: float) -> str:
    """A difference as it is printed, with its sign."""
    return f"{number:+.3f}".replace("-", "−")
