"""`python -m resources.instance dagster.yaml` makes the Dagster instance in DAGSTER_HOME, whoever else does at once.

Belongs here: that command. Not here: what the instance is (dagster.yaml, dagster.postgres.yaml).

Two processes that first open an instance make its databases at the same time, and one of them can fail.
"""

import argparse
import os
import sys
from pathlib import Path

import dagster as dg
import yaml
from filelock import FileLock
from sqlalchemy.engine import make_url

from pipeline.command import command
from pipeline.errors import UserError
from pipeline.files import atomic_replace, make_folder

CONFIG = "dagster.yaml"


@command
def main(arguments: list[str]) -> None:
    """Make the instance, or bring its configuration up to date; 1 and a sentence where that is not possible."""
    parser = argparse.ArgumentParser(
        prog="python -m resources.instance", description="Make the Dagster instance in DAGSTER_HOME; do this first."
    )
    parser.add_argument("config", type=Path, help="dagster.yaml, or dagster.postgres.yaml; it is copied")
    make_instance(parser.parse_args(arguments).config, os.environ.get("DAGSTER_HOME", ""))


def make_instance(config: Path, home: str) -> None:
    """Make the instance that the file `config` describes in the folder `home`; its dagster.yaml comes last.

    Raises `UserError` if `home` is no absolute path or cannot hold Dagster's databases, or if there is no such file.
    """
    if not Path(home).is_absolute():
        raise UserError(f"DAGSTER_HOME must be an absolute path, and is {home!r}.")
    if not config.is_file():
        raise UserError(f"{config} does not exist.")
    refuse_home(home, config)
    make_folder(Path(home))
    with FileLock(Path(home, "instance.lock")), atomic_replace(Path(home, CONFIG)) as temporary:
        temporary.write_bytes(config.read_bytes())
        with dg.DagsterInstance.from_config(home, temporary.name) as instance:
            instance.get_runs_count()  # opening it has made what it lacks


def refuse_home(home: str, config: Path | None = None) -> None:
    """Raise `UserError` if Dagster would misread the path `home` in the address of its SQLite databases.

    Dagster writes the path into that address as it is. `config` is the instance's file, by default that in `home`; one
    that names another storage than SQLite is not concerned.
    """
    database = str(Path(home, "runs.db"))
    address = make_url(f"sqlite:///{database}")
    if (address.database == database and not address.query) or _names_a_storage(config or Path(home, CONFIG)):
        return
    raise UserError(
        f"DAGSTER_HOME {home} cannot hold Dagster's databases, since its path has a ? or a % before two hexadecimal "
        "digits: take another folder, by DAGSTER_HOME or by SONOTAG_STORE, whose folder dagster it is by default."
    )


def _names_a_storage(config: Path) -> bool:
    try:
        return "storage" in (yaml.safe_load(config.read_bytes()) or {})
    except (OSError, TypeError, yaml.YAMLError):
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
