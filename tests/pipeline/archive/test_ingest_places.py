"""One archive in several locations: a folder, a file:// URL, an S3 bucket, a DICOMDIR medium. The tables are equal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet
from s3fs import S3FileSystem

from pipeline.phantom.clinic import make_phantom
from tests.clinics import small_clinic
from tests.conftest import ROOT, plain_bytes
from tests.pipeline.archive.synthetic import index_folder
from tests.s3 import empty_s3

pytestmark = pytest.mark.integration

CLINIC = small_clinic(images=70, patients=8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The archive of a small phantom clinic, defects, cines and zip and all."""
    folder = tmp_path_factory.mktemp("clinic") / "phantom"
    make_phantom(folder, 0, CLINIC)
    return folder / "archive"


@pytest.fixture(scope="module")
def from_folder(archive, tmp_path_factory) -> dict[str, bytes]:
    return ingested(str(archive), tmp_path_factory.mktemp("folder"))


def ingested(place: str, store: Path, **environment: str) -> dict[str, bytes]:
    """The bytes of every table and shard after an ingest of `place` in a process of its own."""
    command = [sys.executable, "-m", "tests.pipeline.archive.ingest", place, str(store)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = [*store.glob("**/tables/*.parquet"), *(store / "images").rglob("part-*.parquet")]
    return {path.name: path.read_bytes() for path in files}


def test_a_file_url_is_the_folder(archive, from_folder, tmp_path):
    assert ingested(f"file://{archive}", tmp_path / "store") == from_folder


def test_a_bucket_of_the_same_files_gives_the_same_tables(archive, from_folder, tmp_path, monkeypatch):
    with empty_s3() as url:
        credentials = {"AWS_ACCESS_KEY_ID": "SENTINELKEY", "AWS_SECRET_ACCESS_KEY": "SENTINELSECRET"}
        named = {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **credentials}
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        system = S3FileSystem(skip_instance_cache=True)
        system.mkdir("clinic")
        system.put(str(archive) + "/", "clinic/scans", recursive=True)
        assert ingested("s3://clinic/scans", tmp_path / "store", **named) == from_folder
        kept = b"".join(plain_bytes(path) for path in (tmp_path / "store").rglob("*") if path.is_file())
        assert b"SENTINEL" not in kept


def test_a_medium_with_a_dicomdir_is_read_by_its_files(archive, tmp_path):
    medium = FileSet()
    paths = sorted(path for path in archive.rglob("IM*") if path.is_file() and path.suffix != ".ZIP")[:6]
    for path in paths:
        medium.add(dcmread(path))
    medium.write(tmp_path / "medium")
    index = index_folder(tmp_path / "medium", tmp_path / "store" / "private")
    assert (index.files, index.records.num_rows) == (7, 6)
    assert index.rejected["reason"].to_pylist() == ["not_an_image"]  # the DICOMDIR itself
