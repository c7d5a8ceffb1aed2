"""The check that no identifier of a patient is in anything that the store shares."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from pipeline.labels.study_groups import printed_descriptions
from pipeline.recipe import Recipe
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.archive.identifier_scan import RecipeTexts

NAME = "no_identifier_exposed"


def spec(asset: str) -> dg.AssetCheckSpec:
    """The blocking check of `asset`."""
    return dg.AssetCheckSpec(
        NAME,
        asset=asset,
        blocking=True,
        description="No identifier of a sample of the archive's files, of tasks' patients or of new images is in a "
        "table, report or log.",
    )


def no_identifier_exposed(archive: str, store: Store, recipe: Recipe) -> dg.AssetCheckResult:
    """Search everything that the store shares, including MLflow's and Dagster's databases, for identifiers."""
    from pipeline.archive.identifier_scan import scan_for_identifiers, shareable_paths

    if not (store.private / "scan.parquet").is_file():
        return dg.AssetCheckResult(
            check_name=NAME,
            passed=True,
            description="nothing to look for: no archive has been read into this store",
            metadata={"files sampled": 0},
        )
    homes = [Path(home) for home in [os.environ.get("DAGSTER_HOME")] if home]
    result = scan_for_identifiers(archive, store.private, shareable_paths(store, homes), _recipe_texts(recipe))
    return dg.AssetCheckResult(
        check_name=NAME,
        passed=not result.findings,
        description=f"searched for {result.patterns} spellings of identifiers of {result.read} files; "
        f"{len(result.findings)} found",
        metadata={
            "files sampled": result.files,
            "of them read": result.read,
            "spellings looked for": result.patterns,
            "exposed": "; ".join(f"{one.kind} in {one.file}" for one in result.findings) or "nothing",
        },
    )


def _recipe_texts(recipe: Recipe) -> "RecipeTexts":
    """Patients of the recipe's tasks, and names that are published because a person chose them."""
    from pipeline.archive.identifier_scan import RecipeTexts
    from pipeline.tasks.manifests import named_patients

    tasks = recipe.downstream.tasks
    patients = (named_patients(Path(task.manifest), task) for task in tasks.values())
    chosen = {recipe.name, *tasks, *recipe.labels.names, *recipe.pretraining.encoders}
    return RecipeTexts(frozenset().union(*patients), printed_descriptions() | chosen)
