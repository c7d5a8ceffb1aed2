"""Whatever ends an ingest, the next one ends with the bytes of one that nothing disturbed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid

from pipeline.phantom.clinic import make_phantom
from tests.clinics import small_clinic
from tests.conftest import ROOT
from tests.pipeline.archive.synthetic import noise, write_dicom

pytestmark = pytest.mark.integration

CLINIC = small_clinic(images=70, patients=8)


def start(archive: Path, store: Path, *limit: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.pipeline.archive.ingest", str(archive), str(store), *limit]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)


def ingest(archive: Path, store: Path) -> float:
    """Run to the end; returns the seconds it took."""
    began = time.monotonic()
    process = start(archive, store)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    return time.monotonic() - began


def public(store: Path) -> dict[str, bytes]:
    """Everything that an ingest leaves in tables/, experiments/ and images/, by path; lock files aside."""
    folders = (store / "tables", store / "experiments", store / "images")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """An archive in two states, the later one grown, shrunk and changed; and the stores of ingests of each in turn."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_phantom(folder / "phantom", 0, CLINIC)
    later = folder / "phantom" / "archive"
    earlier = Path(shutil.copytree(later, folder / "earlier"))
    for path in sorted(path for path in later.rglob("IM*") if path.is_file())[::9]:
        path.unlink()
    for number in range(12):
        uid = generate_uid(entropy_srcs=[str(number)])  # the same buckets of the cache in every run
        write_dicom(later / "new" / str(number), noise(seed=number), PatientID=f"N{number % 3}", SOPInstanceUID=uid)
    uid = generate_uid(entropy_srcs=["cine"])
    cine = np.stack([noise(seed=n) for n in range(50, 60)])
    write_dicom(later / "new" / "cine", cine, PatientID="N1", SOPInstanceUID=uid)
    archive, store = folder / "archive", folder / "store"
    shutil.copytree(earlier, archive)
    ingest(archive, store)
    before = public(store)
    shutil.rmtree(archive)
    shutil.copytree(later, archive)
    seconds = ingest(archive, store)
    return earlier, later, public(store), seconds, before


def largest_written(before: dict[str, bytes], after: dict[str, bytes]) -> int:
    """Bytes of the largest file that is not as it was."""
    return max(len(content) for name, content in after.items() if before.get(name) != content)


def survives(undisturbed, folder: Path, disturb) -> None:
    """Ingest the earlier state, disturb ingests of the later one, and end with the undisturbed store's bytes."""
    earlier, later, expected, *_ = undisturbed
    archive, store = folder / "archive", folder / "store"
    shutil.copytree(earlier, archive)
    disturb(archive, store)
    shutil.rmtree(archive)
    shutil.copytree(later, archive)
    disturb(archive, store)
    ingest(archive, store)
    found = public(store)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def kill_at_random(rng: random.Random, longest: float, times: int):
    def disturb(archive: Path, store: Path) -> None:
        for _ in range(times):
            process = start(archive, store)
            time.sleep(rng.uniform(0, longest))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        ingest(archive, store)  # so that the state that grows from here is the same

    return disturb


def test_a_killed_ingest_leaves_nothing_to_repair(undisturbed, tmp_path):
    survives(undisturbed, tmp_path, kill_at_random(random.Random(1), undisturbed[3], 4))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_an_ingest_that_is_killed_many_times_leaves_nothing_to_repair(undisturbed, tmp_path, seed):
    survives(undisturbed, tmp_path, kill_at_random(random.Random(seed), undisturbed[3], 10))


@pytest.mark.parametrize("share", [0.15, 0.6, 0.95])
def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(undisturbed, tmp_path, share):
    _, _, expected, _, before = undisturbed
    limit = int(share * min(largest_written({}, before), largest_written(before, expected)))

    def disturb(archive: Path, store: Path) -> None:
        process = start(archive, store, str(limit))
        process.communicate()
        assert process.returncode != 0
        assert not [path for path in store.rglob("*.tmp") if path.is_file()]
        ingest(archive, store)

    survives(undisturbed, tmp_path, disturb)
