"""`python -m pipeline.evaluation` prints a recipe's results table and where its figures and its page lie.

Belongs here: that command. Not here: making the table.
"""

from pipeline.command import command, recipe_and_store
from pipeline.errors import UserError
from pipeline.store import Experiment

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
    recipe, store = recipe_and_store()
    experiment = store.experiment(recipe.name)
    if not (experiment.reports / TABLE).is_file():
        raise UserError(f"{experiment.reports / TABLE} does not exist yet: run the job `report` (or `demo`) first.")
    return experiment


if __name__ == "__main__":
    raise SystemExit(main())
