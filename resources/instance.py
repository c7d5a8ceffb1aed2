"""`python -m resources.instance dagster.yaml` creates the Dagster instance in DAGSTER_HOME, one process at a time.

Without it, two processes that first open an instance create its databases at once, and one of them can fail.
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
    """Create the instance, or update its configuration; exit code 1 and a sentence if that is not possible."""
    parser = argparse.ArgumentParser(
        prog="python -m resources.instance", description="Create the Dagster instance in DAGSTER_HOME; do this first."
    )
    parser.add_argument("config", type=Path, help="dagster.yaml, or dagster.postgres.yaml; it is copied")
    make_instance(parser.parse_args(arguments).config, os.environ.get("DAGSTER_HOME", ""))


def make_instance(config: Path, home: str) -> None:
    """Create the instance that the file `config` describes in the folder `home`; writes its dagster.yaml last.

    Raises `UserError` if `config` does not exist, or if `home` is not absolute or not usable for Dagster's databases.
    """
    if not Path(home).is_absolute():
        raise UserError(f"DAGSTER_HOME must be an absolute path, not {home!r}.")
    if not config.is_file():
        raise UserError(f"{config} does not exist.")
    refuse_home(home, config)
    make_folder(Path(home))
    with FileLock(Path(home, "instance.lock")), atomic_replace(Path(home, CONFIG)) as temporary:
        temporary.write_bytes(config.read_bytes())
        with dg.DagsterInstance.from_config(home, temporary.name) as instance:
            instance.get_runs_count()  # creates the databases


def refuse_home(home: str, config: Path | None = None) -> None:
    """Raise `UserError` if Dagster would misread the path `home` in the address of its SQLite databases.

    Dagster does not escape the path. `config` is the instance's file, by default that in `home`; if it names a storage
    other than SQLite, any path is accepted.
    """
    database = str(Path(home, "runs.db"))
    address = make_url(f"sqlite:///{database}")
    if (address.database == database and not address.query) or _names_a_storage(config or Path(home, CONFIG)):
        return
    raise UserError(
        f"DAGSTER_HOME {home} cannot hold Dagster's databases, since its path has a ? or a % before two hexadecimal "
        "digits: set DAGSTER_HOME to another folder, or SONOTAG_STORE, whose subfolder dagster is the default."
    )


def _names_a_storage(config: Path) -> bool:
    try:
        return "storage" in (yaml.safe_load(config.read_bytes()) or {})
    except (OSError, TypeError, yaml.YAMLError):
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
