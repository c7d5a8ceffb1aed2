"""A recipe without the places of one machine.

Belongs here: cutting paths to the file's name. Not here: what is done with what is left.
"""

from pathlib import Path

from pipeline.recipe import Recipe


def portable(recipe: Recipe) -> Recipe:
    """The recipe with the bare names of its files: where they lie is the affair of one machine.

    Its comparisons are those that it makes: a default one that it does not is left out.
    """
    tasks = {
        name: task.model_copy(update={"manifest": Path(task.manifest).name})
        for name, task in recipe.downstream.tasks.items()
    }
    weights = {backbone: Path(file).name for backbone, file in recipe.pretraining.imagenet_weights.items()}
    return recipe.model_copy(
        update={
            "downstream": recipe.downstream.model_copy(update={"tasks": tasks}),
            "pretraining": recipe.pretraining.model_copy(update={"imagenet_weights": weights}),
            "evaluation": recipe.evaluation.model_copy(update={"comparisons": recipe.comparisons}),
        }
    )
