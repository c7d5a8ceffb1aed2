"""Loading the code location against an empty Dagster project's; `python -m benchmarks.startup`.

Belongs here: that comparison. Not here: what may be imported when loading (tests/test_house.py).
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measure import Figure, figures_table

REPEATS = 5
EMPTY = "import dagster as dg\n\ndefs = dg.Definitions()\n"
RECIPE = "paper"  # the largest graph that is shipped
_READY = "Started Dagster code server"


def measure() -> list[Figure]:
    """The ratio, of processor time: a process that waits for a busy machine has not cost more."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "an_empty_project.py").write_text(EMPTY, encoding="utf-8")
        variables = {"SONOTAG_STORE": folder, "SONOTAG_RECIPE": RECIPE}
        ours, empty = [], []
        for _ in range(REPEATS):
            empty.append(_seconds_to_load("an_empty_project", Path(folder), {}))
            ours.append(_seconds_to_load("assets.definitions", Path.cwd(), variables))
    mine, theirs = statistics.median(ours), statistics.median(empty)
    what = f"processor time until the code location is loaded, recipe {RECIPE}, against an empty Dagster project's"
    return [Figure(what, f"{mine / theirs:.2f}× ({mine:.2f} s against {theirs:.2f} s; medians of {REPEATS} in turns)")]


def _seconds_to_load(module: str, folder: Path, variables: Mapping[str, str]) -> float:
    """Processor seconds of Dagster's code server, the process that loads a code location, until it is ready."""
    with tempfile.TemporaryDirectory() as home:
        command = ["-m", "dagster", "api", "grpc", "-m", module, "-d", str(folder), "--socket", f"{home}/socket"]
        server = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **variables, "DAGSTER_HOME": home},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert server.stdout is not None
        if not any(_READY in line for line in server.stdout):
            raise RuntimeError(f"The code server of {module} has not started.")
        user, system = Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        server.kill()  # asked to stop this early it may not hear it
        server.wait()
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    print(figures_table(measure()))
