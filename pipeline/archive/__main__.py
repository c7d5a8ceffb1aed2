"""`python -m pipeline.archive locate ID`: which file of the archive an id means.

Belongs here: this command line. Not here: anything that prints a path without being asked.
"""

import argparse
import os
import sys
from pathlib import Path

from pipeline.archive.listing import locate
from pipeline.errors import UserError
from pipeline.store import Store


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code, 1 where the id is not known."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.archive", description="Ask the private list of files.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("locate", help="print the path of an archive file; the store is SONOTAG_STORE")
    command.add_argument("id", help="a file id such as f_0123456789abcdef, or a frame's id")
    store = Store(Path(os.environ.get("SONOTAG_STORE") or "store"))
    try:
        print(locate(store.private, parser.parse_args(arguments).id))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
