"""What a run's config may set, and what the environment alone does: archive, store, MLflow's address."""

from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import build_defs
from assets.jobs import JOBS
from resources.environment import read_environment

FIELDS: dict[str, dict[str, object]] = {
    "store": {"root": "/elsewhere"},
    "archive": {"folder": "/elsewhere"},
    "compute": {"lock_file": "/elsewhere"},
    "tracking": {
        "uri": "http://elsewhere.example:5000",
        "artifacts": "/elsewhere",
        "experiment": "another",
        "lock_file": "/elsewhere",
        "pending": "/elsewhere",
        "sample_seconds": 0.01,
    },
}
SECRET = "geheim7Wort"


def definitions_in(folder: Path, uri: str) -> dg.Definitions:
    variables = {
        "SONOTAG_STORE": str(folder / "store"),
        "SONOTAG_ARCHIVE": str(folder / "scans"),
        "MLFLOW_TRACKING_URI": uri,
    }
    return build_defs(read_environment(variables))


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return definitions_in(tmp_path_factory.mktemp("open"), "http://mlflow.example:5000")


@pytest.fixture(scope="module")
def with_password(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return definitions_in(tmp_path_factory.mktemp("password"), f"http://trainer:{SECRET}@mlflow.example:5000")


@pytest.mark.parametrize(
    ("resource", "changed"),
    [
        *FIELDS.items(),
        *((resource, {field: value}) for resource, fields in FIELDS.items() for field, value in fields.items()),
    ],
    ids=str,
)
@pytest.mark.parametrize("job", ["demo", "ingest"])
def test_no_run_names_another_archive_store_or_server(
    definitions: dg.Definitions, job: str, resource: str, changed: dict[str, object]
) -> None:
    config = {"resources": {resource: {"config": changed}}}
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(definitions.resolve_job_def(job), config)


@pytest.mark.parametrize("job", JOBS)
def test_a_run_without_config_is_complete(definitions: dg.Definitions, job: str) -> None:
    assert dg.validate_run_config(definitions.resolve_job_def(job), {})


@pytest.mark.parametrize("job", JOBS)
def test_a_jobs_page_names_what_it_works_on_and_no_password(with_password: dg.Definitions, job: str) -> None:
    shown = {key: value.value for key, value in with_password.resolve_job_def(job).metadata.items()}
    variables = read_environment({"SONOTAG_STORE": shown["store"]})
    assert shown["archive"] == str(variables.store.root.parent / "scans")
    assert shown["MLflow"] == "http://mlflow.example:5000"
    assert shown["recipe"] == "demo"
    resources = [resource.description for resource in (with_password.resources or {}).values()]
    assert SECRET not in str([shown, resources])
    assert Path(shown["store"]).is_absolute()
