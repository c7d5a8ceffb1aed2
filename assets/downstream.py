"""Labelled tasks and the models fine-tuned on them (`pipeline.downstream`): an asset per task, backbone and arm."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.catalog import DOCUMENTATION, TASKS
from assets.failures import HOOKS
from assets.leaks import near_pool_hint, near_pool_metadata
from assets.pretraining import encoder_name, outcome_check, outcome_result
from assets.step import FIRST, Context, Materializations, Step, step
from assets.tables import table_version
from pipeline import code_versions
from pipeline.cohort.patient_aliases import known_names
from pipeline.downstream.predictions import PREDICTIONS, TEST, Cell, cells, read_predictions
from pipeline.errors import UserError
from pipeline.evaluation.metrics import METRICS, image_scores
from pipeline.evaluation.results import predictions_by_cell
from pipeline.files import digest, write_table
from pipeline.privacy.identity import number_pseudonym
from pipeline.privacy.training_exposure import training_patients
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm, encoder_of
from pipeline.settings import Backbone
from pipeline.store import Store
from pipeline.tables import pool_or_empty
from pipeline.training.outcome import Outcome, worst_of
from resources.archive import Archive
from resources.compute import POOL, Compute
from resources.mlflow_records import Input
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.downstream.task_images import TaskImages


@dataclass(frozen=True)
class _ArmOnTask:
    """One asset of the factory: an arm on a task."""

    backbone: Backbone
    arm: Arm
    task: str

    @property
    def asset(self) -> str:
        return f"{self.backbone}_{self.arm}_{self.task}"


def arms_on_tasks(recipe: Recipe) -> list[_ArmOnTask]:
    """Every backbone and arm on every task of the recipe."""
    return [
        _ArmOnTask(backbone, arm, task)
        for task in recipe.downstream.tasks
        for backbone in recipe.pretraining.backbones
        for arm in recipe.downstream.arms
    ]


def downstream_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Per task its images, and one fine-tuned asset per backbone and arm.

    Raises `UserError` if a task has the name of a group of other assets: it would be drawn among those.
    """
    for name in DOCUMENTATION.keys() & recipe.downstream.tasks.keys():
        raise UserError(f"Recipe {recipe.name}: no task can be called {name}, as a part of Dagster's graph is.")
    images = [_task_images(recipe, name) for name in recipe.downstream.tasks]
    return [*images, *(_finetuned(recipe, one) for one in arms_on_tasks(recipe))]


def _task_images(recipe: Recipe, name: str) -> dg.AssetsDefinition:
    task = recipe.downstream.tasks[name]
    labels = "a quality from 0" if task.kind == "ordinal" else "a mask"
    relevant = task.model_dump(include={"kind", "classes"}) | recipe.images.model_dump()

    @dg.asset(
        hooks=HOOKS,
        name=f"{name}_images",
        description=f"One row per labelled image of the task {name}: grey pixels, {labels}, patient, split.",
        code_version=f"{code_versions.TASKS}-{digest(relevant)[:8]}",
        group_name=TASKS,
        kinds={"parquet"},
        op_tags=FIRST,
    )
    def task_images(context: Context, store: StoreFolder, archive: Archive, tracking: Tracking) -> Materializations:
        from pipeline.tasks.manifests import read_manifest

        with step(context, store, tracking, recipe, relevant) as here:
            key = archive.key(here.store.private)
            rows = read_manifest(name, task, recipe.images, partial(number_pseudonym, key), here.log)
            write_table(here.store.experiment(recipe.name).task_images(name), rows)
            counts = _counts(rows)
            yield here.made(
                f"{name}_images",
                table_version(rows.drop_columns(["image", "thumbnails"])),
                {"dagster/row_count": rows.num_rows, **counts},
                metrics=counts,
            )

    return task_images


def _counts(rows: pa.Table) -> dict[str, int]:
    """Images and patients per split."""
    by_split = {side: rows["patient"].filter(pc.equal(rows["split"], side)) for side in ("train", "val", "test")}
    images = {f"images.{side}": len(patients) for side, patients in by_split.items()}
    return images | {f"patients.{side}": len(patients.unique()) for side, patients in by_split.items()}


def _finetuned(recipe: Recipe, one: _ArmOnTask) -> dg.AssetsDefinition:
    task = recipe.downstream.tasks[one.task]
    relevant = task.training | recipe.downstream.model_dump(include={"fractions", "seeds", "precision"})
    if task.kind == "segmentation":
        relevant["unet"] = code_versions.UNET

    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        name=one.asset,
        ins={"task_images": dg.AssetIn(f"{one.task}_images")},
        deps=[encoder_name(one.backbone, encoder_of(one.arm))],
        description=f"Predictions of {one.backbone}, arm {one.arm}, for the test images of {one.task}: "
        "one row per image, fraction and seed.",
        code_version=f"{code_versions.FINETUNING}-{digest(relevant)[:8]}",
        group_name=one.task,
        kinds={"torch", "parquet"},
        check_specs=[outcome_check(one.asset), _apart_check(one.asset)],
    )
    def finetuned(
        context: Context, store: StoreFolder, compute: Compute, tracking: Tracking, task_images: pa.Table
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        params = {"backbone": one.backbone, "arm": one.arm, "task": one.task, **relevant}
        with step(context, store, tracking, recipe, params) as here:
            apart = here.checked(_apart_result(here.store, recipe, one, task_images), one.asset)
            if not apart.passed:  # before anything is trained, and whatever else the run materializes
                yield apart
                raise UserError(str(apart.description))
            with compute.training(here.log):
                outcomes, predictions = _train_cells(here, tracking, recipe, one, task_images)
            yield _made(here, one, outcomes, predictions, apart)

    return finetuned


def _apart_check(asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        "no_test_image_in_pool",
        asset=asset,
        blocking=True,
        description="No patient and no image of the task's test set, equal or nearly, is in the pretraining pool; no "
        "patient was in that of its encoder.",
    )


def _apart_result(store: Store, recipe: Recipe, one: _ArmOnTask, images: pa.Table) -> dg.AssetCheckResult:
    """A test image whose patient or (nearly equal) pixels were pretrained on would flatter every pretrained arm.

    The pool's own check of that name compared the tasks at the time of the pool; this one compares again, and with the
    patients of the pool that the encoder was made from, which may differ from today's.
    """
    from pipeline.tasks.pool_overlap import pool_overlap

    pool = pool_or_empty(recipe, earlier=store)
    experiment, encoder = store.experiment(recipe.name), encoder_of(one.arm)
    folders = [experiment.encoder(one.backbone, encoder, seed) for seed in recipe.pretraining.seeds]
    seen = frozenset().union(*(training_patients(store.private, folder) for folder in folders))
    names = known_names({*pool["patient"].to_pylist(), *seen}, earlier=store)
    overlap = pool_overlap(pool, recipe, store, one.task, images, names)
    of_test = f"{overlap.count} of {images['split'].to_pylist().count('test')} test images"
    hint = near_pool_hint(overlap.near, recipe, one.task)
    return dg.AssetCheckResult(
        check_name="no_test_image_in_pool",
        passed=not overlap.count,
        description=f"Task {one.task}: {of_test} share patient or pixels with the pretraining pool, as it is now or "
        f"as {encoder_name(one.backbone, encoder)} was made from it.{hint}",
        metadata={"shared": overlap.count, "images in the pool": pool.num_rows}
        | near_pool_metadata(store, recipe, one.task, overlap.near, pool),
    )


def _train_cells(
    here: Step, tracking: Tracking, recipe: Recipe, one: _ArmOnTask, images: pa.Table
) -> tuple[dict[Cell, Outcome], pa.Table]:
    """Fine-tune every fraction and seed, one MLflow child run each; outcomes, and the predictions of those that ran."""
    from pipeline.downstream.finetune import finetune
    from pipeline.downstream.task_images import task_images

    task, experiment = recipe.downstream.tasks[one.task], here.store.experiment(recipe.name)
    data = task_images(images, task, recipe.images)
    outcomes, predictions = {}, []
    read = _input(here.store, recipe, one.task, data)
    here.run.input(read)
    for cell in cells(recipe):
        if (cell.backbone, cell.arm, cell.task) != (one.backbone, one.arm, one.task):
            continue
        encoder = experiment.encoder(cell.backbone, encoder_of(cell.arm), recipe.pretraining_seed(cell.seed))
        folder = experiment.model(cell.backbone, cell.arm, cell.task, cell.fraction, cell.seed)
        name = f"{one.asset}, {cell.fraction:.0%} of the images, seed {cell.seed}"
        with here.part(tracking, name) as run:
            run.params(asdict(cell) | {"encoder": encoder.name})
            run.input(read)
            precision, record = recipe.downstream.precision, lambda epoch, values: run.metrics(values, epoch)
            outcome = finetune(cell, task, data, encoder, folder, here.log, record, precision)
            run.files([folder / "curves.csv"])
        outcomes[cell] = outcome
        if outcome.status == "ran":
            predictions.append(read_predictions(folder / TEST))
    return outcomes, pa.concat_tables([PREDICTIONS.empty_table(), *predictions])


def _input(store: Store, recipe: Recipe, task: str, data: "TaskImages") -> Input:
    location = store.experiment(recipe.name).task_images(task).relative_to(store.root).as_posix()
    size = {f"images.{side}": len(getattr(data, side)) for side in ("train", "val", "test")}
    return Input(name=f"{task} images", digest=data.digest, location=location, use="training", size=size)


def _made(
    here: Step, one: _ArmOnTask, outcomes: dict[Cell, Outcome], predictions: pa.Table, apart: dg.AssetCheckResult
) -> dg.MaterializeResult[None]:
    """Report the worst outcome: an arm that did not run everywhere is warned of."""
    worst = worst_of(outcomes.values())
    scores = {
        f"{METRICS[kind]}.fraction-{cell.fraction:g}.seed-{cell.seed}": float(image_scores(rows).mean())
        for cell, rows in predictions_by_cell(predictions).items()
        for kind in [rows["kind"][0].as_py()]
    }
    return here.made(
        one.asset,
        digest(*(outcome.fingerprint for outcome in outcomes.values()))[:16],
        {"dagster/row_count": predictions.num_rows, "outcome": worst.status, "reason": worst.reason, **scores},
        metrics=scores,
        checks=[outcome_result(worst), apart],
    )
