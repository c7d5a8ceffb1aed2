"""`python -m pipeline.evaluation` prints a recipe's results table and where its figures lie.

Belongs here: that command. Not here: making the table.
"""

import os
import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.recipe import load_recipe
from pipeline.store import Store

TABLE = "results_table.md"


def main() -> int:
    """Print the report of SONOTAG_RECIPE in SONOTAG_STORE; 1 and a sentence where there is none."""
    try:
        reports = _reports()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print((reports / TABLE).read_text(encoding="utf-8"))
    print("Tables and figures:")
    for path in sorted(reports.iterdir()):
        print(f"  {path}")
    return 0


def _reports() -> Path:
    store = Store(Path(os.environ.get("SONOTAG_STORE") or "store").absolute())
    recipe = load_recipe(os.environ.get("SONOTAG_RECIPE") or "demo", {**os.environ, "SONOTAG_STORE": str(store.root)})
    reports = store.experiment(recipe.name).reports
    if not (reports / TABLE).is_file():
        raise UserError(f"{reports / TABLE} does not exist yet: run the job `report` (or `demo`) first.")
    return reports


if __name__ == "__main__":
    raise SystemExit(main())
