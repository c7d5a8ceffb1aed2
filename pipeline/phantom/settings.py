"""Settings of the phantom clinic (docs/phantom.md): the section `phantom` of a recipe."""

import os
from collections.abc import Mapping

from pydantic import ValidationError, model_validator

from pipeline.errors import UserError
from pipeline.recipe.reading import load_recipe, recipe_file
from pipeline.settings import Count, Likelihood, Settings, first_problem


class Amount(Settings):
    """Numbers of images and of patients."""

    images: Count
    patients: Count

    @model_validator(mode="after")
    def _every_patient_has_an_image(self) -> "Amount":
        if self.images < self.patients:
            raise ValueError(f"{self.images} images are too few for {self.patients} patients")
        return self


class LabelledAmount(Settings):
    """A labelled set's three splits."""

    train: Amount
    val: Amount
    test: Amount


class TagNoise(Settings):
    """Shares of the studies, unless noted, whose tags are wrong in each way.

    A rate above 0 hits at least one. A study is hit by at most one of the first five.
    """

    other_organ: Likelihood = 0.02
    """An examination that no study group covers, such as of a shoulder."""
    wrong_protocol: Likelihood = 0.05
    """The description of another examination, of other groups."""
    misspelt: Likelihood = 0.03
    abbreviated: Likelihood = 0.03
    """A local wording that is in no study group."""
    no_description: Likelihood = 0.02
    swapped_side: Likelihood = 0.1
    """LEFT for RIGHT or the other way, of the studies whose description names a side."""
    missing_probe: Likelihood = 0.04
    """Neither TransducerType nor TransducerData."""
    foreign_probe: Likelihood = 0.02
    """Share of the images that name a phased array, which was not used."""

    @model_validator(mode="after")
    def _a_study_has_one_description(self) -> "TagNoise":
        shares = (self.other_organ, self.wrong_protocol, self.misspelt, self.abbreviated, self.no_description)
        if sum(shares) > 1:
            raise ValueError("other_organ, wrong_protocol, misspelt, abbreviated and no_description exceed 1 together")
        return self


class Defects(Settings):
    """Numbers of defective files of each kind, as shares of the archive's good images; above 0, at least one."""

    truncated_header: Likelihood = 0.004
    truncated_pixels: Likelihood = 0.004
    lying_dimensions: Likelihood = 0.002
    """More rows than there are pixels for."""
    enormous_dimensions: Likelihood = 0.002
    """A few kilobytes that claim half a gigabyte of pixels."""
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
    """A zip file with a note and two good images."""


class Phantom(Settings):
    """The section `phantom`: size of the clinic, noise of its tags, defective files."""

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


def load_phantom(name_or_path: str, environment: Mapping[str, str] = os.environ) -> Phantom:
    """The phantom's settings in a recipe, defaults if it has none; raises `UserError` as `load_recipe`."""
    section = load_recipe(name_or_path, environment).phantom
    try:
        return Phantom.model_validate(section, strict=True)
    except ValidationError as error:
        problem = first_problem(error, "phantom")
        raise UserError(f"Recipe {recipe_file(name_or_path)}: {problem}.") from None
