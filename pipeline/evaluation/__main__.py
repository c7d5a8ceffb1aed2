"""`python -m pipeline.evaluation` prints a recipe's results table and where its figures and its page lie.

Belongs here: that command. Not here: making the table.
"""

import os
from pathlib import Path

from pipeline.command import command
from pipeline.errors import UserError
from pipeline.recipe import load_recipe
from pipeline.store import Experiment, Store

TABLE = "results_table.md"


@command
def main() -> None:
    """Print the report of SONOTAG_RECIPE in SONOTAG_STORE; 1 and a sentence where there is none."""
    experiment = _experiment()
    print((experiment.reports / TABLE).read_text(encoding="utf-8"))
    print("Tables and figures:")
    for path in sorted(experiment.reports.iterdir()):
        print(f"  {path}")
    if experiment.page.is_file():
        print(f"All of it on one page: {experiment.page}")


def _experiment() -> Experiment:
    store = Store(Path(os.environ.get("SONOTAG_STORE") or "store").absolute())
    recipe = load_recipe(os.environ.get("SONOTAG_RECIPE") or "demo", {**os.environ, "SONOTAG_STORE": str(store.root)})
    experiment = store.experiment(recipe.name)
    if not (experiment.reports / TABLE).is_file():
        raise UserError(f"{experiment.reports / TABLE} does not exist yet: run the job `report` (or `demo`) first.")
    return experiment


if __name__ == "__main__":
    raise SystemExit(main())
