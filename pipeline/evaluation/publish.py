"""`python -m pipeline.evaluation.publish FOLDER` writes a recipe's experiment as numbers into FOLDER."""

import argparse
from itertools import product
from pathlib import Path

import pyarrow as pa

from pipeline.blocking_checks import refuse_publication
from pipeline.command import command, recipe_and_store
from pipeline.errors import UserError
from pipeline.evaluation.dataset_table import dataset_rows
from pipeline.evaluation.evidence import evidence_of
from pipeline.evaluation.publication import Publication, write_publication
from pipeline.evaluation.replication import replicate
from pipeline.recipe import Recipe
from pipeline.store import Experiment, Store
from pipeline.tables import image_digest, read_pool
from pipeline.training_sets import training_set_digest


@command
def main() -> None:
    """Write SONOTAG_RECIPE's experiment in SONOTAG_STORE as numbers, then the tables and figures made from them."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluation.publish", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="such as docs/replication; the document is docs/replication.md")
    folder = parser.parse_args().folder
    publish(*recipe_and_store(), folder)
    replicate(folder)


def publish(recipe: Recipe, store: Store, folder: Path) -> None:
    """Write the experiment of `recipe` in `store` into `folder`.

    Raises `UserError` if nothing has been fine-tuned, if an encoder was pretrained on another pool than the store's
    present one, or if `folder` holds another recipe's experiment.
    """
    refuse_publication(store, recipe)
    experiment = store.experiment(recipe.name)
    evidence = evidence_of(recipe, experiment)
    if not evidence.outcomes:
        raise UserError(f"{experiment.root} holds no fine-tuned model of the recipe: run the job `finetune` first.")
    pool = read_pool(store, recipe)
    _refuse_another_pool(recipe, experiment, pool)
    write_publication(folder, Publication(evidence, dataset_rows(recipe, experiment, pool)))


def _refuse_another_pool(recipe: Recipe, experiment: Experiment, pool: pa.Table) -> None:
    settings = recipe.pretraining
    for backbone, name, seed in product(settings.backbones, settings.encoders, settings.seeds):
        stated = training_set_digest(experiment.encoder(backbone, name, seed))
        if stated and not image_digest(pool).startswith(stated):
            raise UserError(
                f"{backbone} {name}, seed {seed}, was pretrained on another pool than the store's present one: run "
                "the jobs `pretrain` and `finetune` first."
            )


if __name__ == "__main__":
    raise SystemExit(main())
