"""`python -m pipeline.evaluation.publish FOLDER` writes a recipe's experiment into FOLDER as numbers alone.

Belongs here: that command. Not here: what the folder holds (`publication`), what is made of it (`replication`).
"""

import argparse
import os
import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.evaluation.publication import Publication, write_publication
from pipeline.evaluation.replication import replicate
from pipeline.evaluation.report import dataset_rows, evidence_of
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store
from pipeline.tables import pretraining_pool_table


def main() -> int:
    """Write SONOTAG_RECIPE's experiment in SONOTAG_STORE as numbers, then all tables and figures that follow."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluation.publish", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="such as docs/replication; the document is docs/replication.md")
    folder = parser.parse_args().folder
    try:
        store = Store(Path(os.environ.get("SONOTAG_STORE") or "store").absolute())
        name = os.environ.get("SONOTAG_RECIPE") or "demo"
        publish(load_recipe(name, {**os.environ, "SONOTAG_STORE": str(store.root)}), store, folder)
        replicate(folder)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


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
