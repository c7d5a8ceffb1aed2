"""The settings of a recipe in a form that can be shared."""

from pathlib import Path
from typing import Any

from pipeline.recipe import Recipe


def shared_settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, with file names in place of paths and only the comparisons that it makes."""
    tasks = {
        name: task.model_copy(update={"manifest": Path(task.manifest).name})
        for name, task in recipe.downstream.tasks.items()
    }
    weights = {backbone: Path(file).name for backbone, file in recipe.pretraining.imagenet_weights.items()}
    shared = recipe.model_copy(
        update={
            "downstream": recipe.downstream.model_copy(update={"tasks": tasks}),
            "pretraining": recipe.pretraining.model_copy(update={"imagenet_weights": weights}),
            "evaluation": recipe.evaluation.model_copy(update={"comparisons": recipe.comparisons}),
        }
    )
    return shared.model_dump(mode="json")
