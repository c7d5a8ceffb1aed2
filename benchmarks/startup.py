"""`python -m benchmarks.startup` compares loading the code location with loading an empty Dagster project."""

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
RECIPE = "paper"  # the largest shipped graph
WITH_BYTECODE = "PYTHONPYCACHEPREFIX"
"""A folder for compiled modules: pip compiles Dagster's, so ours must be compiled too."""
_READY = "Started Dagster code server"


def measure() -> list[Figure]:
    """The ratio of processor times, which do not include waiting on a busy machine.

    Excludes the first start after an installation or upgrade, when Python compiles our modules.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "an_empty_project.py").write_text(EMPTY, encoding="utf-8")
        compiled = {WITH_BYTECODE: folder}
        variables = {"SONOTAG_STORE": folder, "SONOTAG_RECIPE": RECIPE, **compiled}
        ours, empty = [], []
        for _ in range(1 + REPEATS):
            empty.append(_seconds_to_load("an_empty_project", Path(folder), compiled))
            ours.append(_seconds_to_load("assets.definitions", Path.cwd(), variables))
        del ours[0], empty[0]  # these compiled the modules
    ratios = [mine / theirs for mine, theirs in zip(ours, empty, strict=True)]  # per pair: load affects both
    seconds = f"{statistics.median(ours):.2f} s against {statistics.median(empty):.2f} s"
    range_ = f"{min(ratios):.2f} to {max(ratios):.2f}"
    what = f"processor time until the code location is loaded, recipe {RECIPE}, against an empty Dagster project's"
    value = f"{statistics.median(ratios):.2f}× (median of {REPEATS} pairs of runs, {range_}; {seconds})"
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
            raise RuntimeError(f"The code server of {module} did not start.")
        user, system = Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        server.kill()  # this early it may ignore SIGTERM
        server.wait()
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    print(figures_table(measure()))
