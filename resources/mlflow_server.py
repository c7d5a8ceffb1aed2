"""`python -m resources.mlflow_server` serves MLflow's pages of the store's database on this machine.

Not here: recording runs (`resources.tracking`).
"""

import argparse
import os
import sys
from pathlib import Path

from pipeline.command import command
from pipeline.files import make_folder
from resources.environment import read_environment
from resources.port import LOOPBACK, refuse_taken

HOSTS = ",".join(pattern for name in (LOOPBACK, "localhost") for pattern in (name, f"{name}:*"))
"""MLflow's default would also allow names such as 10.example.org, as private addresses."""


@command
def main(arguments: list[str]) -> None:
    """Run MLflow's server until Ctrl-C; exit code 1 and a sentence if the port is in use."""
    parser = argparse.ArgumentParser(prog="python -m resources.mlflow_server", description="MLflow's pages.")
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s")
    port = parser.parse_args(arguments).port
    refuse_taken(port)
    environment = read_environment(os.environ)
    folder = environment.store.mlflow
    make_folder(folder)
    variables = {"MLFLOW_BACKEND_STORE_URI": environment.tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    os.execve(
        mlflow,
        [
            *(mlflow, "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"),
            *("--allowed-hosts", HOSTS, "--default-artifact-root", (folder / "artifacts").as_uri()),
        ],
        {**os.environ, **variables},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
