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

REPEATS = 7
EMPTY = "import dagster as dg\n\ndefs = dg.Definitions()\n"
RECIPE = "paper"  # the largest graph that is shipped
WITH_BYTECODE = "PYTHONPYCACHEPREFIX"
"""A folder for compiled modules: Dagster's own come compiled by pip, so that ours have to be, too."""
_READY = "Started Dagster code server"


def measure() -> list[Figure]:
    """The ratio, of processor time: a process that waits for a busy machine has not cost more.

    Of every start but the first after an installation or an upgrade, when Python compiles our modules.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "an_empty_project.py").write_text(EMPTY, encoding="utf-8")
        compiled = {WITH_BYTECODE: folder}
        variables = {"SONOTAG_STORE": folder, "SONOTAG_RECIPE": RECIPE, **compiled}
        ours, empty = [], []
        for _ in range(1 + REPEATS):
            empty.append(_seconds_to_load("an_empty_project", Path(folder), compiled))
            ours.append(_seconds_to_load("assets.definitions", Path.cwd(), variables))
        del ours[0], empty[0]  # which compiled what they load
    ratios = [mine / theirs for mine, theirs in zip(ours, empty, strict=True)]  # of turns: a busy machine slows both
    seconds = f"{statistics.median(ours):.2f} s against {statistics.median(empty):.2f} s"
    range_ = f"{min(ratios):.2f} to {max(ratios):.2f}"
    what = f"processor time until the code location is loaded, recipe {RECIPE}, against an empty Dagster project's"
    value = f"{statistics.median(ratios):.2f}× (median of {REPEATS} turns, which gave {range_}; {seconds})"
    return [Figure(what, value)]


def _seconds_to_load(module: str, folder: Path, variables: Mapping[str, str]) -> float:
    """Processor seconds of Dagster's code server, the process that loads a code location, until it is ready."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as home:
        command = ["-m", "dagster", "api", "grpc", "-m", module, "-d", str(folder), "--socket", f"{home}/socket"]
        server = subprocess.Popen(
            [sys.executable, *command],
            env={**inherited, **variables, "DAGSTER_HOME": home},
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
