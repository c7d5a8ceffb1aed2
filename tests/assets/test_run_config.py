"""What a run's config may set, and what the environment alone does: archive, store, MLflow's address."""

from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import build_defs
from assets.jobs import JOBS
from resources.environment import read_environment

FIELDS = {
    "store": {"root": "/elsewhere"},
    "archive": {"folder": "/elsewhere"},
    "compute": {"lock_file": "/elsewhere"},
    "tracking": {
        "uri": "http://elsewhere.example:5000",
        "artifacts": "/elsewhere",
        "experiment": "another",
        "lock_file": "/elsewhere",
        "unsent": "/elsewhere",
        "sample_seconds": 0.01,
    },
}
SECRET = "geheim7Wort"


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    folder = tmp_path_factory.mktemp("launchpad")
    variables = {
        "SONOTAG_STORE": str(folder / "store"),
        "SONOTAG_ARCHIVE": str(folder / "scans"),
        "MLFLOW_TRACKING_URI": f"http://trainer:{SECRET}@mlflow.example:5000",
    }
    return build_defs(read_environment(variables))


@pytest.mark.parametrize(("resource", "field"), [(r, f) for r, fields in FIELDS.items() for f in fields])
@pytest.mark.parametrize("job", ["demo", "ingest"])
def test_no_run_names_another_archive_store_or_server(
    definitions: dg.Definitions, job: str, resource: str, field: str
) -> None:
    config = {"resources": {resource: {"config": {field: FIELDS[resource][field]}}}}
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(definitions.resolve_job_def(job), config)


@pytest.mark.parametrize("job", JOBS)
def test_a_run_without_config_is_complete(definitions: dg.Definitions, job: str) -> None:
    assert dg.validate_run_config(definitions.resolve_job_def(job), {})


@pytest.mark.parametrize("job", JOBS)
def test_a_jobs_page_names_what_it_works_on_and_no_password(definitions: dg.Definitions, job: str) -> None:
    shown = {key: value.value for key, value in definitions.resolve_job_def(job).metadata.items()}
    variables = read_environment({"SONOTAG_STORE": shown["store"]})
    assert shown["archive"] == str(variables.store.root.parent / "scans")
    assert shown["MLflow"] == "http://mlflow.example:5000"
    assert shown["recipe"] == "demo"
    resources = [dg_resource.description for dg_resource in (definitions.resources or {}).values()]
    assert SECRET not in str([shown, resources])
    assert Path(shown["store"]).is_absolute()
