"""What Dagster loads: assets, jobs, resources and the console logger, for the recipe that the environment names."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.audit import doubtful_labels_asset
from assets.automation import schedules, sensors
from assets.catalog import with_catalog
from assets.champions import champion_assets
from assets.checks import asset_checks
from assets.console import console
from assets.downstream import downstream_assets
from assets.embeddings import embeddings_asset
from assets.frozen import frozen_scores_asset
from assets.images import image_assets
from assets.ingestion import index_archive, quarantine_asset
from assets.jobs import jobs
from assets.label_report import label_report_asset
from assets.labels import label_assets, mapping_version
from assets.pool import pool_assets
from assets.prediction import prediction_assets
from assets.pretraining import encoder_assets
from assets.probes import unmapped_probes_asset
from assets.reports import report_assets
from assets.step import guarded
from pipeline.archive.location import without_credentials
from pipeline.errors import UserError
from pipeline.files import restrict_umask
from pipeline.recipe import Recipe
from resources.archive import Archive
from resources.compute import Compute
from resources.environment import Environment, read_environment
from resources.instance import refuse_home
from resources.store import StoreFolder
from resources.tables import TableInputs
from resources.tracking import Tracking


def build_defs(environment: Environment) -> dg.Definitions:
    """Everything for one archive and store, and for one recipe or several."""
    recipes = environment.recipes
    shared = with_catalog([index_archive(recipes[0])], recipes[0], alone=True)
    of_recipes = [_of_recipe(recipe, environment) for recipe in recipes]
    return dg.Definitions(
        assets=[*shared, *(asset for assets, _ in of_recipes for asset in assets)],
        asset_checks=[check for _, checks in of_recipes for check in checks],
        jobs=jobs(_locations(environment), recipes),
        sensors=sensors(recipes),
        schedules=schedules(recipes),
        resources=_resources(environment),
        loggers={"console": console},
    )


def _of_recipe(
    recipe: Recipe, environment: Environment
) -> tuple[list[dg.AssetsDefinition], list[dg.AssetChecksDefinition]]:
    mapping, alone = mapping_version(recipe, environment.study_groups), len(environment.recipes) == 1
    assets = [
        quarantine_asset(recipe),
        *label_assets(recipe, environment.study_groups, mapping),
        unmapped_probes_asset(recipe, environment.study_groups, mapping),
        doubtful_labels_asset(recipe, environment.study_groups, mapping),
        *image_assets(recipe),
        *pool_assets(recipe, mapping),
        label_report_asset(recipe, mapping),
        *encoder_assets(recipe, mapping),
        *downstream_assets(recipe),
        frozen_scores_asset(recipe),
        embeddings_asset(recipe),
        *champion_assets(recipe),
        *report_assets(recipe),
        *prediction_assets(recipe),
    ]
    checks = asset_checks(recipe, environment.study_groups, assets, alone)
    return with_catalog(assets, recipe, alone, checks), checks


def _locations(environment: Environment) -> dict[str, str]:
    """What a job works on, as its page shows it before anything starts."""
    return {
        "recipe": ", ".join(recipe.name for recipe in environment.recipes),
        "archive": without_credentials(environment.archive),
        "store": str(environment.store.root),
        "MLflow": without_credentials(environment.tracking_uri),
    }


def _resources(environment: Environment) -> dict[str, dg.ResourceDefinition]:
    store = environment.store
    tracking = Tracking(
        uri=environment.tracking_uri,
        artifacts=str(store.mlflow / "artifacts"),
        lock_file=str(store.locks / "mlflow.lock"),
        pending=str(store.mlflow / "unsent"),
    )
    folder = StoreFolder(root=str(store.root))
    tables = TableInputs(folder, environment.recipes, guarded)
    return {
        "store": _closed(folder, str(store.root)),
        "io_manager": dg.IOManagerDefinition(lambda _: tables, config_schema={}, description="tables of the store"),
        "archive": _closed(Archive(folder=environment.archive), without_credentials(environment.archive)),
        "compute": _closed(Compute(lock_file=str(store.locks / "training.lock")), "one training at a time"),
        "tracking": _closed(tracking, without_credentials(environment.tracking_uri)),
    }


def _closed(resource: dg.ConfigurableResource[Any], says: str) -> dg.ResourceDefinition:
    """`resource` as the environment sets it: a run's config cannot name another archive, store or server.

    Nor does Dagster keep what it is set to, which may hold a password: `says` is shown in its place.
    """
    return dg.ResourceDefinition(lambda _: resource, config_schema={}, description=says)


def _load(variables: Mapping[str, str]) -> dg.Definitions:
    """The definitions; a recipe that cannot be read is one sentence and exit code 2, not a traceback.

    The server that loads them for Dagster's pages raises an error of Dagster's own instead: their dialog then begins
    with the sentence. On an exit, Dagster would report a lost server; it would wrap any other error.
    """
    restrict_umask()
    try:
        refuse_home(variables.get("DAGSTER_HOME", ""))
        return build_defs(read_environment(variables))
    except UserError as error:
        if "grpc" in sys.argv:  # dagster api grpc
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


defs = _load(os.environ)
