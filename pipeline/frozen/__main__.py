"""`python -m pipeline.frozen` scores the frozen encoders of a recipe on its tasks and on the archive's own labels."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.command import command, recipe_and_store
from pipeline.downstream.task_images import task_images
from pipeline.errors import UserError
from pipeline.files import read_table
from pipeline.frozen.evaluate import FRACTIONS, Scored, scores_of, scores_of_mean_mask
from pipeline.frozen.problem import Problem, Split, problem_of_archive, problem_of_task
from pipeline.markdown import pipe_table
from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.pretraining.plan import planned_encoders
from pipeline.pretraining.pool import load_pool
from pipeline.recipe import Recipe
from pipeline.representation.features import Features, brightness_features, encoder_features, pixel_features
from pipeline.store import Store
from pipeline.training.outcome import Outcome


@command
def main(arguments: list[str]) -> None:
    """Print a table; fails with one sentence if there is nothing to score."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.frozen", description=__doc__)
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="images of tasks that are scored; default: val"
    )
    parser.add_argument("encoders", nargs="*", type=Path, help="folders of encoders; default: those of SONOTAG_RECIPE")
    options = parser.parse_args(arguments)
    recipe, store = recipe_and_store()
    folders = options.encoders or _trained(recipe, store)
    for problem in _problems(recipe, store, options.split):
        rows = [row for name, scored in _all_scores(problem, folders) for row in _lines(name, scored)]
        head = ["features", "method", *(f"{fraction:.0%} of the images" for fraction in FRACTIONS)]
        metric = "Dice" if problem.is_segmentation else "area under the ROC curve"
        size = f"{len(problem.evaluated)} images of {len({problem.patients[at] for at in problem.evaluated})} patients"
        print(
            f"\n## {problem.name}: {', '.join(problem.names)}\n\n{metric}, {size}\n\n{pipe_table(head, rows)}",
            flush=True,
        )


def _trained(recipe: Recipe, store: Store) -> list[Path]:
    planned = planned_encoders(recipe, store.experiment(recipe.name))
    found = [encoder.folder for encoder in planned if (done := Outcome.read(encoder.folder)) and done.status == "ran"]
    if not found:
        raise UserError(f"{store.root} holds no finished encoder of the recipe {recipe.name}: run the job `pretrain`.")
    return found


def _problems(recipe: Recipe, store: Store, split: Split) -> Iterator[Problem]:
    yield problem_of_archive(load_pool(store, recipe))
    for name, task in recipe.downstream.tasks.items():
        path = store.experiment(recipe.name).task_images(name)
        if path.is_file():
            yield problem_of_task(name, task, task_images(read_table(path), task, recipe.images), split)


def _all_scores(problem: Problem, folders: list[Path]) -> Iterator[tuple[str, list[Scored]]]:
    maps = problem.is_segmentation
    yield "pixels", scores_of(pixel_features(problem.images_NHW, maps), problem)
    if maps:
        yield "none", scores_of_mean_mask(problem)
    else:
        yield "brightness", scores_of(brightness_features(problem.images_NHW), problem)
    for folder in folders:
        began = time.monotonic()
        features = _features(folder, problem)
        extracted = time.monotonic()
        scored = scores_of(features, problem)
        done = time.monotonic()
        print(f"{folder.name}: features {extracted - began:.1f} s, scores {done - extracted:.1f} s", file=sys.stderr)
        yield folder.name, scored


def _features(folder: Path, problem: Problem) -> Features:
    how = Preprocessing.read(folder)
    encoder = load_encoder(how.backbone, folder / ENCODER)
    return encoder_features(encoder, how.normalization, problem.images_NHW, problem.is_segmentation)


def _lines(name: str, scored: list[Scored]) -> list[list[str]]:
    methods = dict.fromkeys(row.method for row in scored)
    return [[name, method, *(_cell(row) for row in scored if row.method == method)] for method in methods]


def _cell(row: Scored) -> str:
    return f"{row.score.mean:.3f} ({row.score.low:.3f} to {row.score.high:.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
