"""`python -m pipeline.frozen` scores the frozen encoders of a recipe on its tasks and on the archive's own labels."""

import argparse
import sys
from pathlib import Path

from pipeline.blocking_checks import refuse_training
from pipeline.command import command, recipe_and_store
from pipeline.evaluation.frozen_scores import frozen_sections
from pipeline.files import read_table
from pipeline.frozen.table import FrozenInput, score_folders, score_recipe
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, read_pool


@command
def main(arguments: list[str]) -> None:
    """Print a table for each problem; fails with one sentence if there is nothing to score."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.frozen", description=__doc__)
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="images of tasks that are scored; default: val"
    )
    parser.add_argument("encoders", nargs="*", type=Path, help="folders of encoders; default: those of SONOTAG_RECIPE")
    options = parser.parse_args(arguments)
    recipe, store = recipe_and_store()
    found = _input(recipe, store)
    refuse_training(store, recipe)
    if options.encoders:
        rows = score_folders(recipe, store, found, options.encoders, _log)
    else:
        rows = score_recipe(recipe, store, found, _log)
    for section in frozen_sections(recipe, rows, options.split):
        print(f"\n{section.markdown()}", flush=True)


def _input(recipe: Recipe, store: Store) -> FrozenInput:
    """The pool and the tasks whose images are prepared; raises `UserError` if there is no pool."""
    paths = {name: store.experiment(recipe.name).task_images(name) for name in recipe.downstream.tasks}
    tasks = {name: read_table(path) for name, path in paths.items() if path.is_file()}
    return FrozenInput(read_pool(store, recipe), DICOM_INDEX.read(store.tables), tasks)


def _log(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
