"""`python -m pipeline.evaluation.beforehand` prints what a recipe's test sets could show, before they are looked at.

Belongs here: that command. Not here: how it is told (`detectable`).
"""

from pipeline.command import command, recipe_and_store
from pipeline.evaluation.detectable import detectable_differences
from pipeline.evaluation.report import detectable_chapter, images_by_test_patient, validation_of


@command
def main() -> None:
    """Print the smallest differences that SONOTAG_RECIPE's tests could find; no prediction of a test image is read."""
    recipe, store = recipe_and_store()
    experiment = store.experiment(recipe.name)
    validation, images = validation_of(recipe, experiment), images_by_test_patient(recipe, experiment)
    print(detectable_chapter(recipe, detectable_differences(recipe, validation, images)).markdown())


if __name__ == "__main__":
    raise SystemExit(main())
