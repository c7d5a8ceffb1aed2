"""`python -m pipeline.evaluation.power_analysis`: the smallest differences that a recipe's test sets could show.

It reads no prediction of a test image.
"""

from pipeline.command import command, recipe_and_store
from pipeline.evaluation.minimum_effect import minimum_effects
from pipeline.evaluation.report import images_by_test_patient, minimum_effects_chapter, validation_of


@command
def main() -> None:
    """Print the smallest differences that SONOTAG_RECIPE's tests could find; no prediction of a test image is read."""
    recipe, store = recipe_and_store()
    experiment = store.experiment(recipe.name)
    validation, images = validation_of(recipe, experiment), images_by_test_patient(recipe, experiment)
    print(minimum_effects_chapter(recipe, minimum_effects(recipe, validation, images)).markdown())


if __name__ == "__main__":
    raise SystemExit(main())
