"""`python -m pipeline.evaluation` prints a recipe's report, the paths of its files, and what was gained."""

from pipeline.command import command, recipe_and_store
from pipeline.errors import UserError
from pipeline.evaluation.evidence import frozen_scores_of
from pipeline.evaluation.frozen_gains import gains_section

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
    gains = gains_section(recipe, frozen_scores_of(experiment.tables), "test")
    if gains is not None:  # once more, since a terminal shows what is printed last
        print(f"\n{gains.markdown()}")


if __name__ == "__main__":
    raise SystemExit(main())
