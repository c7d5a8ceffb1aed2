"""A fine-tuned model applied to a folder of new DICOM files (`pipeline.prediction`), one batch per run."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from assets.downstream import arms_on_tasks
from assets.failures import HOOKS
from assets.step import Context, Materializations, Step, step
from pipeline import code_versions
from pipeline.errors import UserError
from pipeline.files import digest, make_folder, read_table
from pipeline.recipe import Recipe
from resources.compute import POOL, Compute
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.prediction.predict import Summary

GROUP = "prediction"
ASSET = "new_predictions"
CHECK = "every_file_has_a_row"


class NewImages(dg.Config):
    """Which model is applied to what; `ops: {new_predictions: {config: {…}}}` of a run of the job `predict`.

    Folder and model have no default that could be meant: empty ones are refused, by a sentence and not when loading,
    since a job whose config comes with it (the executor) must be complete.
    """

    folder: str = Field(default="", description="folder of DICOM files")
    model: str = Field(default="", description="asset of the model, such as resnet50_ce_dcm_thyroid")
    fraction: float = Field(default=1.0, description="share of the training images that it was trained on")
    seed: int = Field(default=0, description="seed of its fine-tuning")


def prediction_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`new_predictions`."""

    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        name=ASSET,
        description="Scores or masks (DICOM SEG) of new images by one fine-tuned model; an image unlike what it has "
        "learnt from is flagged with its reason. In the store's private folder, since masks name the patient.",
        code_version=code_versions.PREDICTION,
        group_name=GROUP,
        kinds={"torch", "parquet"},
        check_specs=[dg.AssetCheckSpec(CHECK, asset=ASSET, blocking=True)],
    )
    def new_predictions(
        context: Context, config: NewImages, store: StoreFolder, compute: Compute, tracking: Tracking
    ) -> Materializations:
        with step(context, store, tracking, recipe, config.model_dump(exclude={"folder"})) as here:
            which = _known(recipe, config)
            out = here.store.new_predictions(recipe.name, which)
            model = here.store.experiment(recipe.name).root / "models" / which
            with compute.training(here.log):
                summary = _predict(model, Path(config.folder), out, recipe.archive.frames_per_cine, here)
            yield _made(here, out, summary)

    return [new_predictions]


def _known(recipe: Recipe, config: NewImages) -> str:
    """The folder of the model that `config` names, relative to the recipe's models."""
    if not config.folder:
        raise UserError("new_predictions.folder is not set: the run's config must name a folder of DICOM files.")
    known = [one.asset for one in arms_on_tasks(recipe)]
    if config.model not in known:
        raise UserError(f"new_predictions.model is {config.model!r}, which is none of {', '.join(known)}.")
    return f"{config.model}/fraction-{config.fraction:g}_seed-{config.seed}"


def _predict(model: Path, folder: Path, out: Path, frames_per_cine: int, here: Step) -> "Summary":
    """Fill `out` anew; what an earlier run left there stays until this one is done."""
    from pipeline.prediction.predict import list_inputs, predict

    given = list_inputs([folder], out)
    make_folder(out.parent)
    with TemporaryDirectory(dir=out.parent, prefix=".") as temporary:
        made = Path(temporary, "made")
        summary = predict(model, given.files, made, frames_per_cine, here.log, given.unlisted)
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    return summary


def _made(here: Step, out: Path, summary: "Summary") -> dg.MaterializeResult[None]:
    from pipeline.prediction.predict import TABLE

    rows = read_table(out / TABLE)
    counts = {"files": summary.files, "images": summary.images, "scored": summary.scored}
    flagged = {f"flagged.{reason}": count for reason, count in summary.flagged.items()}
    named = len(rows["file"].unique()) - summary.unlisted
    check = dg.AssetCheckResult(
        check_name=CHECK,
        passed=named == summary.files and not summary.unlisted,
        description=f"{summary.files} files, {named} of them with a row; {summary.unlisted} folders cannot be listed",
        metadata={"files": summary.files, "files with a row": named},
    )
    return here.made(
        ASSET,
        digest(rows.drop_columns(["mask"]).to_pylist())[:16],
        {"dagster/row_count": rows.num_rows, **counts, **flagged},
        metrics=counts | flagged,
        checks=[check],
    )
