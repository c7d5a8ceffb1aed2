"""`python -m pipeline.evaluation.publish FOLDER` writes a recipe's experiment into FOLDER as numbers alone.

Belongs here: that command. Not here: what the folder holds (`publication`), what is made of it (`replication`).
"""

import argparse
from pathlib import Path

from pipeline.command import command, recipe_and_store
from pipeline.errors import UserError
from pipeline.evaluation.publication import Publication, write_publication
from pipeline.evaluation.replication import replicate
from pipeline.evaluation.report import dataset_rows, evidence_of
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import pretraining_pool_table


@command
def main() -> None:
    """Write SONOTAG_RECIPE's experiment in SONOTAG_STORE as numbers, then all tables and figures that follow."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluation.publish", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="such as docs/replication; the document is docs/replication.md")
    folder = parser.parse_args().folder
    publish(*recipe_and_store(), folder)
    replicate(folder)


def publish(recipe: Recipe, store: Store, folder: Path) -> None:
    """Write what the store holds of `recipe` into `folder`; raises `UserError` where nothing has been fine-tuned."""
    experiment = store.experiment(recipe.name)
    evidence = evidence_of(recipe, experiment)
    if not evidence.outcomes:
        raise UserError(f"{experiment.root} holds no fine-tuned model of the recipe: run the job `finetune` first.")
    pool = pretraining_pool_table(recipe.labels.names).read(store.tables)
    write_publication(folder, Publication(evidence, dataset_rows(recipe, experiment, pool)))


if __name__ == "__main__":
    raise SystemExit(main())
