"""The command `python -m pipeline.phantom FOLDER [--recipe RECIPE] [--seed N]`."""

import argparse
import os
import sys
from pathlib import Path

from pipeline.command import command
from pipeline.phantom.clinic import make_phantom
from pipeline.phantom.settings import load_phantom


@command
def main() -> None:
    """Write the phantom."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.phantom", description="Write the phantom clinic.")
    parser.add_argument("folder", type=Path, help="a new or empty folder, or an older phantom to replace")
    parser.add_argument(
        "--recipe",
        default=os.environ.get("SONOTAG_RECIPE") or "demo",
        help="a name or a YAML file; its section `phantom` has size and noise; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="a different clinic for each number; default: %(default)s")
    arguments = parser.parse_args()
    make_phantom(arguments.folder, arguments.seed, load_phantom(arguments.recipe), print)


if __name__ == "__main__":
    sys.exit(main())
