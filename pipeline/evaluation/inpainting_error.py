"""The error of each context encoder's inpainting, compared with the mean patch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pipeline.evaluation.display_names import arm_label, backbone_label
from pipeline.evaluation.document import TextTable
from pipeline.files import read_json
from pipeline.methods.ce import INPAINTING
from pipeline.recipe import Recipe
from pipeline.settings import Backbone
from pipeline.store import Experiment


@dataclass(frozen=True)
class InpaintingError:
    """Mean squared errors, in squared z-scores, on the hidden centres of the validation images."""

    backbone: Backbone
    encoder: str
    """Name of the method or variant."""
    seed: int
    validation_mse: float
    mean_patch_mse: float
    """Error of the mean centre of the training images, the baseline to beat."""

    @property
    def beats_mean_patch(self) -> bool:
        """Whether the encoder's error is the lower one."""
        return self.validation_mse < self.mean_patch_mse


def inpainting_errors(recipe: Recipe, experiment: Experiment) -> list[InpaintingError]:
    """The errors of every context encoder of `recipe` that this experiment has trained."""
    found = []
    settings = recipe.pretraining
    for backbone, encoder, seed in product(settings.backbones, settings.context_encoders, settings.seeds):
        path = experiment.encoder(backbone, encoder, seed) / INPAINTING
        if path.is_file():
            errors = read_json(path)
            found.append(InpaintingError(backbone, encoder, seed, errors["validation_mse"], errors["mean_patch_mse"]))
    return found


def inpainting_table(recipe: Recipe, errors: Sequence[InpaintingError]) -> TextTable:
    """One row per context encoder and seed: its error, that of the mean patch, and which is lower."""
    return TextTable.of(
        errors,
        {
            "Backbone": lambda row: backbone_label(row.backbone),
            "Pretraining": lambda row: arm_label(recipe, row.encoder),
            "Seed": lambda row: str(row.seed),
            "Validation error (squared z-scores)": lambda row: f"{row.validation_mse:.3f}",
            "Error of the mean patch": lambda row: f"{row.mean_patch_mse:.3f}",
            "Better?": lambda row: "yes" if row.beats_mean_patch else "no",
        },
        numbers_from=6,
    )
