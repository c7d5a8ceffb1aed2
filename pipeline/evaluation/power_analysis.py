"""`python -m pipeline.evaluation.power_analysis` prints the smallest differences that a recipe's test sets can show."""

from pipeline.command import command, recipe_and_store
from pipeline.downstream.predictions import VALIDATION
from pipeline.evaluation.evidence import images_by_test_patient, predictions_of
from pipeline.evaluation.minimum_effect import minimum_effects
from pipeline.evaluation.report import minimum_effects_chapter


@command
def main() -> None:
    """Print the minimum detectable effects of SONOTAG_RECIPE without reading a prediction of a test image."""
    recipe, store = recipe_and_store()
    experiment = store.experiment(recipe.name)
    validation, images = predictions_of(recipe, experiment, VALIDATION), images_by_test_patient(recipe, experiment)
    print(minimum_effects_chapter(recipe, minimum_effects(recipe, validation, images)).markdown())


if __name__ == "__main__":
    raise SystemExit(main())
