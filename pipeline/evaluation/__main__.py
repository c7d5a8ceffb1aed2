"""`python -m pipeline.evaluation` prints a recipe's report and the paths of its files."""

from pipeline.command import command, recipe_and_store
from pipeline.errors import UserError

TABLE = "results_table.md"


@command
def main() -> None:
    """Print the report of SONOTAG_RECIPE in SONOTAG_STORE; fails with one sentence if there is none."""
    recipe, store = recipe_and_store()
    experiment = store.experiment(recipe.name)
    report = experiment.reports / TABLE
    if not report.is_file():
        raise UserError(f"{report} does not exist: run the job `report` (or `demo`) first.")
    print(report.read_text(encoding="utf-8"))
    print("Tables and figures:")
    for path in sorted(experiment.reports.iterdir()):
        print(f"  {path}")
    if experiment.page.is_file():
        print(f"The whole report as one page: {experiment.page}")


if __name__ == "__main__":
    raise SystemExit(main())
