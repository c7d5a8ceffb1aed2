"""What frozen encoders tell without fine-tuning (`pipeline.frozen`): the table of their scores."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.catalog import EVALUATION
from assets.failures import HOOKS
from assets.pretraining import encoder_name
from assets.step import Context, Materializations, step
from assets.tables import size_and_columns
from pipeline import code_versions
from pipeline.files import digest
from pipeline.markdown import inline
from pipeline.recipe import Recipe
from pipeline.tables import FROZEN_SCORES
from resources.compute import POOL, Compute
from resources.store import StoreFolder
from resources.tracking import Tracking

SCORES = "frozen_scores"


def frozen_scores_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """`frozen_scores`, of all encoders and tasks of `recipe`."""
    settings, tasks = recipe.pretraining, tuple(recipe.downstream.tasks)
    tables = ("pretraining_pool", "dicom_index", *(f"{task}_images" for task in tasks))

    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        name=SCORES,
        ins={name: dg.AssetIn(name) for name in tables},
        deps=[encoder_name(backbone, encoder) for backbone in settings.backbones for encoder in settings.encoders],
        description="One row per problem (a task, or the archive's own labels), split, encoder or trivial control, "
        "method and share of the training images: the score of frozen features, without fine-tuning; also by machine "
        "and by source of the images.",
        code_version=code_versions.FROZEN,
        group_name=EVALUATION,
        kinds={"torch", "parquet"},
    )
    def frozen_scores(
        context: Context, store: StoreFolder, compute: Compute, tracking: Tracking, **inputs: pa.Table
    ) -> Materializations:
        from pipeline.evaluation.evidence import trainings_of
        from pipeline.evaluation.frozen_scores import unscored
        from pipeline.frozen.table import FrozenInput, score_recipe

        with step(context, store, tracking, recipe) as here:
            loaded = [inputs[name] for name in tables]
            with here.holding(compute.training(here.log), *loaded) as (pool, index, *of_tasks):
                found = FrozenInput(pool, index, dict(zip(tasks, of_tasks, strict=True)))
                rows = score_recipe(recipe, here.store, found, here.log)
            missing = unscored(recipe, trainings_of(recipe, here.store.experiment(recipe.name)), rows)
            yield here.made(
                SCORES,
                digest(rows["fingerprint"].to_pylist())[:16],
                {**size_and_columns(FROZEN_SCORES, rows), **_shown(recipe, rows, missing)},
                metrics=_metrics(rows),
            )

    return frozen_scores


def _shown(recipe: Recipe, rows: pa.Table, missing: Sequence[str]) -> dict[str, Any]:
    """The scores to read: those of validation images, by which to choose, before those of test images."""
    from pipeline.evaluation.frozen_scores import SPLITS, frozen_sections

    shown = {
        f"scores of {images} images": "\n\n".join(one.markdown() for one in frozen_sections(recipe, rows, split))
        for split, images in SPLITS.items()
    }
    named = "\n".join(f"- {inline(line)}" for line in missing)
    return {name: dg.MetadataValue.md(text) for name, text in {**shown, "not scored": named or "(none)"}.items()}


def _metrics(rows: pa.Table) -> dict[str, float]:
    """The scores under the names that MLflow stores them by."""
    found = {}
    of_all_images = rows.filter(pc.is_null(rows["group_by"]))
    for row in of_all_images.drop_columns(["resampled"]).to_pylist():
        encoder = f"{row['backbone']}." if row["backbone"] else ""
        seed = "" if row["seed"] is None else f".seed-{row['seed']}"
        of = f"{row['problem']}.{row['split']}.{encoder}{row['features']}{seed}"
        if row["score"] is not None:
            found[f"{of}.{row['method']}.fraction-{row['fraction']:g}"] = row["score"]
    return found
