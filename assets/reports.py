"""The group `reports`: tables, figures and the HTML page of a recipe (`pipeline.evaluation`)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from assets.catalog import key_of
from assets.downstream import arms_on_tasks
from assets.embeddings import VECTORS
from assets.failures import HOOKS
from assets.frozen import SCORES
from assets.pictures import picture_url
from assets.pretraining import encoder_name
from assets.step import Context, Materializations, named_link, step, warning
from pipeline import code_versions
from pipeline.evaluation.learning_checks import INPAINTING_CHECK, learning_checks, task_check
from pipeline.files import digest
from pipeline.recipe import Recipe
from resources.store import StoreFolder
from resources.tracking import Tracking

GROUP = "reports"


def report_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Tables, figures, and the page that holds them all."""
    figures = [_figure(recipe, name, *facts) for name, facts in _figures(recipe).items()]
    parts = [_results_table(recipe), _dataset_table(recipe), *figures]
    return [*parts, _html_report(recipe, [part.key.path[-1] for part in parts])]


def _figures(recipe: Recipe) -> Mapping[str, tuple[str, Sequence[str]]]:
    """Description and upstream assets of each figure (`pipeline.evaluation.report_figures.FIGURES`)."""
    return {
        "inpainting_figure": (
            "Validation images, the same with a hidden centre, and the inpainting of each context encoder (paper "
            "Figure 5).",
            [*_encoders(recipe, recipe.pretraining.context_encoders), "pretraining_pool"],
        ),
        "training_curves": (
            "Losses and scores of pretraining by epoch.",
            _encoders(recipe, recipe.pretraining.encoders),
        ),
        "embedding_maps": (
            "The pool's images on the map of each encoder (t-SNE), coloured by label, machine and source.",
            [VECTORS, "pretraining_pool"],
        ),
        "boxplots": ("Bootstrap values of every arm on every task (paper Figure 6).", _models(recipe)),
        "differences_figure": (
            "The declared differences between arms with their intervals, for every task and fraction.",
            ["results_table"],
        ),
        "confusion_matrices": (
            "Ordinal tasks: true and predicted classes, a panel per arm, all seeds together.",
            _models(recipe, "ordinal"),
        ),
        "segmentation_overlays": (
            "Segmentation tasks: true and predicted outlines on the test images with each arm's best, median and worst "
            "Dice.",
            _models(recipe, "segmentation"),
        ),
    }


def _models(recipe: Recipe, *kinds: str) -> list[str]:
    """The fine-tuned assets; those of tasks of `kinds` if any are given."""
    tasks = recipe.downstream.tasks
    return [one.asset for one in arms_on_tasks(recipe) if not kinds or tasks[one.task].kind in kinds]


def _encoders(recipe: Recipe, encoders: Sequence[str]) -> list[str]:
    return [encoder_name(backbone, encoder) for backbone in recipe.pretraining.backbones for encoder in encoders]


def _report_asset(
    recipe: Recipe, name: str, description: str, deps: Sequence[str], **more: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The decorator of every report asset."""
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        name=name,
        deps=deps,
        description=description,
        code_version=f"{code_versions.EVALUATION}-{digest(recipe.evaluation.model_dump())[:8]}",
        group_name=GROUP,
        hooks=HOOKS,
        automation_condition=_when_changed(recipe),  # evaluated by the sensor `reports_follow`, off by default
        **more,
    )
    return decorator


def _when_changed(recipe: Recipe) -> dg.AutomationCondition[Any]:
    """Whenever something upstream is newer; reports do without scores and embeddings of frozen encoders."""
    missing = dg.AutomationCondition.any_deps_missing()
    optional = dg.AssetSelection.assets(*(key_of(recipe, name) for name in (SCORES, VECTORS)))
    return dg.AutomationCondition.eager().replace(missing, missing.ignore(optional))


def _results_table(recipe: Recipe) -> dg.AssetsDefinition:
    tasks = list(recipe.downstream.tasks)
    checks = {
        INPAINTING_CHECK: "The inpainting of every context encoder has a lower error than the mean patch.",
        **{task_check(task): "The best arm scores above the best constant predictor." for task in tasks},
    }

    @_report_asset(
        recipe,
        "results_table",
        "One row per backbone, arm, task, fraction and seed: mean and bootstrap standard deviation, or why it did not "
        "run; the declared differences with intervals and p-values; all metrics.",
        [*_models(recipe), *_encoders(recipe, recipe.pretraining.context_encoders), SCORES],
        kinds={"csv", "markdown"},
        check_specs=[dg.AssetCheckSpec(name, asset="results_table", description=checks[name]) for name in checks],
    )
    def results_table(context: Context, store: StoreFolder, tracking: Tracking) -> Materializations:
        from pipeline.evaluation.report import RESULTS_FILES, write_results

        with step(context, store, tracking, recipe, recipe.evaluation.model_dump()) as here:
            experiment = here.store.experiment(recipe.name)
            report = write_results(recipe, experiment)
            yield here.made(
                "results_table",
                report.digest[:16],
                {
                    "dagster/row_count": len(report.results),
                    "ran": sum(result.status == "ran" for result in report.results),
                    "differences tested": sum(row.p is not None for row in report.differences),
                    "results": dg.MetadataValue.md(report.markdown),
                },
                metrics=report.numbers,
                files=[experiment.reports / name for name in RESULTS_FILES],
                checks=[warning(one.passed, one.scores, one.name) for one in learning_checks(report, tasks)],
            )

    return results_table


def _dataset_table(recipe: Recipe) -> dg.AssetsDefinition:
    @_report_asset(
        recipe,
        "dataset_table",
        "One row per data set: images and patients, per split (the paper's Table 1).",
        [f"{task}_images" for task in recipe.downstream.tasks],
        kinds={"csv", "markdown"},
    )
    def dataset_table(
        context: Context, store: StoreFolder, tracking: Tracking, pretraining_pool: pa.Table
    ) -> Materializations:
        from pipeline.evaluation.dataset_table import write_dataset_table

        with step(context, store, tracking, recipe) as here:
            experiment = here.store.experiment(recipe.name)
            markdown = write_dataset_table(recipe, experiment, pretraining_pool)
            yield here.made(
                "dataset_table",
                digest(markdown)[:16],
                {"data sets": dg.MetadataValue.md(markdown)},
                files=[experiment.reports / "dataset_table.csv", experiment.reports / "dataset_table.md"],
            )

    return dataset_table


def _figure(recipe: Recipe, name: str, description: str, deps: Sequence[str]) -> dg.AssetsDefinition:
    """An asset of PNG files, shown inline in Dagster and stored by MLflow."""

    @_report_asset(recipe, name, description, deps, kinds={"image"})
    def figure(context: Context, store: StoreFolder, tracking: Tracking) -> Materializations:
        from pipeline.evaluation.report_figures import draw

        with step(context, store, tracking, recipe) as here:
            paths = draw(name, recipe, here.store)
            pictures = "\n\n".join(f"![{path.stem}]({picture_url(path)})" for path in paths)
            yield here.made(
                name,
                digest([path.read_bytes() for path in paths])[:16],
                {"figure": dg.MetadataValue.md(pictures or "nothing to draw")},
                files=paths,
            )

    return figure


def _html_report(recipe: Recipe, deps: Sequence[str]) -> dg.AssetsDefinition:
    @_report_asset(
        recipe,
        "html_report",
        "All tables and figures as one self-contained HTML page, to be archived, printed or shared.",
        deps,
        kinds={"html"},
    )
    def html_report(context: Context, store: StoreFolder, tracking: Tracking) -> Materializations:
        from pipeline.evaluation.html_report import write_html_report

        with step(context, store, tracking, recipe) as here:
            page = write_html_report(recipe, here.store)
            yield here.made(
                "html_report",
                digest(page.read_bytes())[:16],
                {"page": dg.MetadataValue.path(page), **_in_mlflow(here.run.url, page)},
                files=[page],
            )

    return html_report


def _in_mlflow(run: str | None, page: Path) -> dict[str, Any]:
    """A link to the page in MLflow, which shows it in the browser; empty if MLflow could not be reached."""
    if not run:
        return {}
    address, _, view = run.partition("?")
    return {"page in MLflow": named_link(f"open {page.name}", f"{address}/artifacts/{page.name}?{view}")}
