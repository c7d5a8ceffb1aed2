"""`kill -9` at random moments: a restarted training ends with the same bits as an uninterrupted one.

Belongs here: real processes and signals. Not here: stops at each step by an exception (test_pretrain.py).
"""

import random
import subprocess
import sys
import time

import pytest

from pipeline.training.outcome import Outcome
from tests.conftest import ROOT
from tests.pipeline.pretraining.conftest import contents

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 240


def started(method, folder):
    """A process that has imported everything and begins to train."""
    command = [sys.executable, "-m", "tests.pipeline.pretraining.killable", method, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1][-3000:]
    return process


def undisturbed(method, folder):
    """Train without a disturbance; returns the seconds it took."""
    process = started(method, folder)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors[-3000:]
    return time.monotonic() - begun


def kill_and_go_on(method, folder, kills, seconds, seed):
    """Kill the training `kills` times at random moments of the `seconds` that it takes, then let it finish."""
    moments = random.Random(seed)
    for _ in range(kills):
        process = started(method, folder)
        time.sleep(moments.uniform(0, seconds * 0.8))
        process.kill()
        process.communicate()
    undisturbed(method, folder)


@pytest.mark.parametrize(("method", "kills"), [("ce_dcm", 3), ("spark_aux", 1)])
def test_killed_at_random_it_ends_with_the_same_files(tmp_path, method, kills):
    seconds = undisturbed(method, tmp_path / "whole")
    kill_and_go_on(method, tmp_path / "killed", kills, seconds, seed=1)
    assert Outcome.read(tmp_path / "killed").status == "ran"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("method", ["dcm", "ce", "ce_dcm"])
def test_killed_many_times_it_ends_with_the_same_files(tmp_path, method):
    seconds = undisturbed(method, tmp_path / "whole")
    for seed in range(3):
        kill_and_go_on(method, tmp_path / str(seed), 6, seconds, seed)
        assert contents(tmp_path / str(seed)) == contents(tmp_path / "whole")
