"""What Dagster loads: assets, jobs, resources and the console logger, for the recipe that the environment names.

Belongs here: putting the pieces together. Not here: any piece. Loading imports little but Dagster.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.automation import schedules, sensors
from assets.catalog import with_catalog
from assets.champions import champion_assets
from assets.console import console
from assets.downstream import downstream_assets
from assets.images import image_assets
from assets.ingestion import ingestion_assets
from assets.jobs import jobs
from assets.labels import label_assets, mapping_version
from assets.prediction import prediction_assets
from assets.pretraining import encoder_assets
from assets.reports import report_assets
from pipeline.archive.place import shown
from pipeline.errors import UserError
from resources.archive import Archive
from resources.compute import Compute
from resources.environment import Environment, read_environment
from resources.store import StoreFolder
from resources.tracking import Tracking


def build_defs(environment: Environment) -> dg.Definitions:
    """Everything for one recipe, archive and store."""
    recipe = environment.recipe
    mapping = mapping_version(recipe, environment.study_groups)
    return dg.Definitions(
        assets=with_catalog(
            [
                *ingestion_assets(recipe),
                *label_assets(recipe, environment.study_groups, mapping),
                *image_assets(recipe, mapping),
                *encoder_assets(recipe, mapping),
                *downstream_assets(recipe),
                *champion_assets(recipe),
                *report_assets(recipe),
                *prediction_assets(recipe),
            ],
            recipe,
        ),
        jobs=jobs(),
        sensors=sensors(recipe),
        schedules=schedules(recipe),
        resources=_resources(environment),
        loggers={"console": console},
    )


def _resources(environment: Environment) -> dict[str, dg.ConfigurableResource[Any]]:
    store = environment.store
    return {
        "store": StoreFolder(root=str(store.root)),
        "archive": Archive(folder=_as_configured("SONOTAG_ARCHIVE", environment.archive)),
        "compute": Compute(lock_file=str(store.locks / "training.lock")),
        "tracking": Tracking(
            uri=_as_configured("MLFLOW_TRACKING_URI", environment.tracking_uri),
            artifacts=str(store.mlflow / "artifacts"),
            experiment=environment.recipe.name,
            lock_file=str(store.locks / "mlflow.lock"),
            unsent=str(store.mlflow / "unsent"),
        ),
    }


def _as_configured(variable: str, address: str) -> str:
    """`address`, or its variable's name where it holds a password: Dagster keeps and shows what it is configured by.

    A step reads the variable when it starts.
    """
    return address if shown(address) == address else dg.EnvVar(variable)


def _load(variables: Mapping[str, str]) -> dg.Definitions:
    """The definitions; a recipe that cannot be read is one sentence and exit code 2, not a traceback.

    The server that loads them for Dagster's pages raises an error of Dagster's own instead: their dialog then begins
    with the sentence. Of an exit it would say that a server is gone, and any other error it would wrap.
    """
    try:
        return build_defs(read_environment(variables))
    except UserError as error:
        if "grpc" in sys.argv:  # dagster api grpc
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


defs = _load(os.environ)
