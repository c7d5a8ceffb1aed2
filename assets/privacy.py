"""The search for identifiers where none may be.

Belongs here: the check that assets share. Not here: what counts as an identifier (`pipeline.privacy.identifiers`).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from pipeline.recipe import Recipe
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.privacy.identifiers import Known

NAME = "no_identifier_exposed"


def spec(asset: str) -> dg.AssetCheckSpec:
    """The check of `asset`; what follows waits for it, and a run in which it fails has failed."""
    return dg.AssetCheckSpec(
        NAME,
        asset=asset,
        blocking=True,
        description="No identifier of a sample of the archive's files, of tasks' patients or of new images stands in "
        "a table, report or log.",
    )


def no_identifier_exposed(archive: str, store: Store, recipe: Recipe, asset: str) -> dg.AssetCheckResult:
    """Search all that the store shares, MLflow's and Dagster's databases among it, for the archive's identifiers.

    Rare descriptions, patients of the recipe's tasks and files that a model was applied to are looked for, too.
    """
    from pipeline.privacy.identifiers import exposed, shared_places

    if not (store.private / "scan.parquet").is_file():
        return dg.AssetCheckResult(
            check_name=NAME,
            asset_key=asset,
            passed=True,
            description="nothing to look for: no archive has been read into this store",
            metadata={"files sampled": 0},
        )
    homes = [Path(home) for home in [os.environ.get("DAGSTER_HOME")] if home]
    found = exposed(archive, store.private, shared_places(store, homes), _known(recipe))
    return dg.AssetCheckResult(
        check_name=NAME,
        asset_key=asset,
        passed=not found.exposures,
        description=f"{found.identifiers} spellings of identifiers of {found.read} files looked for, found in "
        f"{len(found.exposures)} places",
        metadata={
            "files sampled": found.files,
            "of them read": found.read,
            "spellings looked for": found.identifiers,
            "exposed": "; ".join(f"{one.identifier} in {one.file}" for one in found.exposures) or "nothing",
        },
    )


def _known(recipe: Recipe) -> "Known":
    """What the recipe names: its tasks' patients, and names that are published since a person chose them."""
    from pipeline.labels.study_groups import printed_descriptions
    from pipeline.privacy.identifiers import Known
    from pipeline.tasks.manifests import named_patients

    tasks = recipe.downstream.tasks
    patients = (named_patients(Path(task.manifest), task) for task in tasks.values())
    chosen = {recipe.name, *tasks, *recipe.labels.names, *recipe.pretraining.encoders}
    return Known(frozenset().union(*patients), printed_descriptions() | chosen)
