"""The search for identifiers where none may be.

Belongs here: the check that assets share. Not here: what counts as an identifier (`pipeline.archive.identifiers`).
"""

import os
from pathlib import Path

import dagster as dg

from pipeline.store import Store

NAME = "no_identifier_exposed"


def spec(asset: str) -> dg.AssetCheckSpec:
    """The check of `asset`; what follows waits for it, and a run in which it fails has failed."""
    return dg.AssetCheckSpec(
        NAME,
        asset=asset,
        blocking=True,
        description="No identifier of a sample of the archive's files stands in a table, report or log.",
    )


def no_identifier_exposed(archive: str, store: Store, asset: str) -> dg.AssetCheckResult:
    """Search all that the store shares, MLflow's and Dagster's databases among it, for the archive's identifiers."""
    from pipeline.archive.identifiers import exposed, shared_places

    if not (store.private / "scan.parquet").is_file():
        return dg.AssetCheckResult(
            check_name=NAME,
            asset_key=asset,
            passed=True,
            description="nothing to look for: no archive has been read into this store",
            metadata={"files sampled": 0},
        )
    homes = [Path(home) for home in [os.environ.get("DAGSTER_HOME")] if home]
    found = exposed(archive, store.private, shared_places(store, homes))
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
