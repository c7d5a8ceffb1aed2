"""Tables and figures of a recipe.

Belongs here: the assets of the group `reports`. Not here: numbers and drawing (`pipeline.evaluation`).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import privacy
from assets.downstream import places
from assets.failures import HOOKS
from assets.pictures import picture_url
from assets.pretraining import encoder_name
from assets.step import named_link, step
from pipeline import code_versions
from pipeline.files import digest
from pipeline.recipe import Recipe
from pipeline.store import Store
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.evaluation.report import ResultsReport

GROUP = "reports"


def report_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Tables, figures, and the page that holds them all."""
    parts = [_results_table(recipe), _dataset_table(recipe), *_figures(recipe)]
    return [*parts, _html_report(recipe, [part.key.path[-1] for part in parts])]


def _figures(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Drawn assets: of pretraining, then of fine-tuning."""
    fine_tuned = [place.asset for place in places(recipe)]
    return [
        _figure(
            recipe,
            "inpainting_figure",
            "Validation images, their hidden centres, and what each context encoder paints there (paper Figure 5).",
            [*_encoders(recipe, recipe.pretraining.context_encoders), "pretraining_pool"],
            _draw_inpainting,
        ),
        _figure(
            recipe,
            "training_curves",
            "Losses and scores of pretraining, epoch by epoch.",
            _encoders(recipe, recipe.pretraining.encoders),
            _draw_training_curves,
        ),
        _figure(
            recipe,
            "boxplots",
            "Bootstrap values of every arm on every task (paper Figure 6).",
            fine_tuned,
            _draw_boxplots,
        ),
        _figure(
            recipe,
            "differences_figure",
            "The differences of arms that the recipe declares, with intervals: every task and share of the images.",
            fine_tuned,
            _draw_differences,
        ),
        _figure(
            recipe,
            "confusion_matrices",
            "Ordinal tasks: true against decoded classes, a panel per arm, all seeds counted together.",
            _of_kind(recipe, "ordinal"),
            _draw_confusion_matrices,
        ),
        _figure(
            recipe,
            "segmentation_overlays",
            "Segmentations: true and predicted outlines on the test images of each arm's best, median and worst Dice.",
            _of_kind(recipe, "segmentation"),
            _draw_overlays,
        ),
    ]


def _of_kind(recipe: Recipe, kind: str) -> list[str]:
    """The fine-tuned assets of tasks of that kind."""
    return [place.asset for place in places(recipe) if recipe.downstream.tasks[place.task].kind == kind]


def _encoders(recipe: Recipe, encoders: Sequence[str]) -> list[str]:
    return [encoder_name(backbone, encoder) for backbone in recipe.pretraining.backbones for encoder in encoders]


def _report_asset(
    recipe: Recipe, name: str, description: str, deps: Sequence[str], **more: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The decorator all reports share."""
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        name=name,
        deps=deps,
        description=description,
        code_version=f"{code_versions.EVALUATION}-{digest(recipe.evaluation.model_dump())[:8]}",
        group_name=GROUP,
        hooks=HOOKS,
        automation_condition=dg.AutomationCondition.eager(),  # asked by the sensor `reports_follow`, which is off
        **more,
    )
    return decorator


def _results_table(recipe: Recipe) -> dg.AssetsDefinition:
    tasks = list(recipe.downstream.tasks)
    deps = [place.asset for place in places(recipe)] + _encoders(recipe, recipe.pretraining.context_encoders)
    checks = {
        "inpainting_beats_the_mean_patch": "What context encoders paint is nearer to the truth than the mean patch is.",
        **{
            f"{task}_beats_a_constant": "The best arm is better than the best answer that is the same for every image."
            for task in tasks
        },
    }

    @_report_asset(
        recipe,
        "results_table",
        "One row per backbone, arm, task, fraction and seed: mean and bootstrap deviation, or why it did not run; "
        "the differences that the recipe declares, with intervals and p-values; all metrics.",
        deps,
        kinds={"csv", "markdown"},
        check_specs=[
            *(dg.AssetCheckSpec(check, asset="results_table", description=says) for check, says in checks.items()),
            privacy.spec("results_table"),
        ],
    )
    def results_table(
        context: dg.AssetExecutionContext, store: StoreFolder, archive: Archive, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.evaluation.report import RESULTS_FILES, write_results

        with step(context, tracking, recipe, recipe.evaluation.model_dump()) as here:
            place = store.open()
            experiment = place.experiment(recipe.name)
            report = write_results(recipe, experiment)
            ran = [result for result in report.results if result.status == "ran"]
            yield here.made(
                "results_table",
                digest([str(row) for row in (*report.results, *report.summaries, *report.differences)])[:16],
                {
                    "dagster/row_count": len(report.results),
                    "ran": len(ran),
                    "differences tested": sum(row.p is not None for row in report.differences),
                    "results": dg.MetadataValue.md(report.markdown),
                },
                metrics=_metrics(report),
                files=[experiment.reports / name for name in RESULTS_FILES],
                checks=[
                    *_learning_checks(report, tasks),
                    privacy.no_identifier_exposed(archive.folder, place, recipe),
                ],
            )

    return results_table


def _metrics(report: "ResultsReport") -> dict[str, float]:
    """Scores of what ran and p-values of what was tested, as MLflow keeps them."""
    scores = {
        f"{r.backbone}.{r.arm}.{r.task}.fraction-{r.fraction:g}.seed-{r.seed}": r.mean
        for r in report.results
        if r.mean is not None
    }
    p_values = {
        f"p.{d.backbone}.{d.arm}-{d.against}.{d.task}.fraction-{d.fraction:g}": d.p
        for d in report.differences
        if d.p is not None
    }
    return scores | p_values


def _learning_checks(report: "ResultsReport", tasks: list[str]) -> list[dg.AssetCheckResult]:
    """Warn where nothing was learnt: no arm above the best constant, an inpainting no better than the mean patch."""
    checks = [_inpainting_check(report)]
    constants = {constant.task: constant.score for constant in report.constants}
    for task in tasks:
        best = max((r.mean for r in report.results if r.task == task and r.mean is not None), default=None)
        passed = best is not None and task in constants and best > constants[task]
        says = f"best arm {_score(best)}, best constant answer {_score(constants.get(task))}"
        checks.append(_warning(f"{task}_beats_a_constant", passed, says))
    return checks


def _inpainting_check(report: "ResultsReport") -> dg.AssetCheckResult:
    errors = [
        f"{i.backbone} {i.encoder}, seed {i.seed} {_score(i.validation_mse)}, the mean patch {_score(i.mean_patch_mse)}"
        for i in report.inpaintings
    ]
    passed = all(i.validation_mse < i.mean_patch_mse for i in report.inpaintings)
    says = f"squared error: {'; '.join(errors)}" if errors else "nothing was inpainted"
    return _warning("inpainting_beats_the_mean_patch", passed, says)


def _score(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _warning(name: str, passed: bool, says: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=says)


def _dataset_table(recipe: Recipe) -> dg.AssetsDefinition:
    @_report_asset(
        recipe,
        "dataset_table",
        "One row per data set: images and patients, per split (the paper's Table 1).",
        ["pretraining_pool", *(f"{task}_images" for task in recipe.downstream.tasks)],
        kinds={"csv", "markdown"},
    )
    def dataset_table(
        context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.evaluation.report import write_dataset_table
        from pipeline.tables import read_pool

        with step(context, tracking, recipe) as here:
            opened = store.open()
            pool = read_pool(opened, recipe)
            experiment = opened.experiment(recipe.name)
            markdown = write_dataset_table(recipe, experiment, pool)
            yield here.made(
                "dataset_table",
                digest(markdown)[:16],
                {"data sets": dg.MetadataValue.md(markdown)},
                files=[experiment.reports / "dataset_table.csv", experiment.reports / "dataset_table.md"],
            )

    return dataset_table


def _figure(
    recipe: Recipe, name: str, description: str, deps: Sequence[str], draw: Callable[[Recipe, Store], list[Path]]
) -> dg.AssetsDefinition:
    """An asset whose PNG files `draw` writes: shown inline in Dagster, kept by MLflow."""

    @_report_asset(recipe, name, description, deps, kinds={"image"})
    def figure(
        context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        with step(context, tracking, recipe) as here:
            paths = draw(recipe, store.open())
            pictures = "\n\n".join(f"![{path.stem}]({picture_url(path)})" for path in paths)
            yield here.made(
                name,
                digest([path.read_bytes() for path in paths])[:16],
                {"figure": dg.MetadataValue.md(pictures or "nothing to draw")},
                files=paths,
            )

    return figure


def _draw_inpainting(recipe: Recipe, store: Store) -> list[Path]:
    from pipeline.evaluation.report_figures import write_inpainting_figure
    from pipeline.pretraining.pool import load_pool

    return write_inpainting_figure(recipe, store.experiment(recipe.name), load_pool(store, recipe))


def _draw_training_curves(recipe: Recipe, store: Store) -> list[Path]:
    from pipeline.evaluation.report_figures import write_training_curves

    return write_training_curves(recipe, store.experiment(recipe.name))


def _draw_boxplots(recipe: Recipe, store: Store) -> list[Path]:
    from pipeline.evaluation.report_figures import write_boxplots

    return write_boxplots(recipe, store.experiment(recipe.name))


def _draw_differences(recipe: Recipe, store: Store) -> list[Path]:
    from pipeline.evaluation.report_figures import write_differences

    return write_differences(recipe, store.experiment(recipe.name))


def _draw_confusion_matrices(recipe: Recipe, store: Store) -> list[Path]:
    from pipeline.evaluation.report_figures import write_confusion_matrices

    return write_confusion_matrices(recipe, store.experiment(recipe.name))


def _draw_overlays(recipe: Recipe, store: Store) -> list[Path]:
    from pipeline.evaluation.report_figures import write_overlays

    return write_overlays(recipe, store.experiment(recipe.name))


def _html_report(recipe: Recipe, deps: Sequence[str]) -> dg.AssetsDefinition:
    @_report_asset(
        recipe,
        "html_report",
        "All tables and figures as one HTML page that stands alone, to be kept, printed or passed on.",
        deps,
        kinds={"html"},
        check_specs=[privacy.spec("html_report")],
    )
    def html_report(
        context: dg.AssetExecutionContext, store: StoreFolder, archive: Archive, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.evaluation.html_report import write_html_report

        with step(context, tracking, recipe) as here:
            place = store.open()
            page = write_html_report(recipe, place)
            yield here.made(
                "html_report",
                digest(page.read_bytes())[:16],
                {"page": dg.MetadataValue.path(page), **_in_mlflow(here.run.url, page)},
                files=[page],
                checks=[privacy.no_identifier_exposed(archive.folder, place, recipe)],
            )

    return html_report


def _in_mlflow(run: str | None, page: Path) -> dict[str, Any]:
    """Where MLflow shows the page, which a browser opens from there; nothing where MLflow could not be reached."""
    if not run:
        return {}
    place, _, view = run.partition("?")
    return {"page in MLflow": named_link(f"open {page.name}", f"{place}/artifacts/{page.name}?{view}")}
