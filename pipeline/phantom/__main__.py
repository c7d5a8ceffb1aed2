"""The command `python -m pipeline.phantom FOLDER [--recipe RECIPE] [--seed N]`.

Belongs here: arguments and exit codes. Not here: any making.
"""

import argparse
import os
import sys
from pathlib import Path

from pipeline.command import command
from pipeline.phantom.clinic import make_phantom
from pipeline.phantom.settings import load_phantom


@command
def main() -> None:
    """Make the phantom; 0, or 1 with one sentence for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.phantom", description="Write the phantom clinic.")
    parser.add_argument("folder", type=Path, help="new or empty folder, or an older phantom to replace")
    parser.add_argument(
        "--recipe",
        default=os.environ.get("SONOTAG_RECIPE") or "demo",
        help="a name or a YAML file; its section `phantom` says how large and how noisy; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="another clinic for another number (default 0)")
    arguments = parser.parse_args()
    make_phantom(arguments.folder, arguments.seed, load_phantom(arguments.recipe), print)


if __name__ == "__main__":
    sys.exit(main())
