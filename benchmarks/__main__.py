"""`python -m benchmarks` compares with peers; an argument measures one thing at length.

`python -m benchmarks pretraining`: training and its reading (4 minutes). `python -m benchmarks million`: indexing
1,000,000 files (6 minutes).

Belongs here: these commands. Not here: any measurement.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import archive_at_scale, evaluation, ingestion, pretraining, pretraining_from_files, startup
from benchmarks.measure import figures_table, table
from pipeline.phantom.clinic import make_phantom


def main() -> None:
    """Make a phantom in a temporary folder, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("what", nargs="?", choices=_MEASUREMENTS, default="all")
    measure = _MEASUREMENTS[parser.parse_args().what]
    with tempfile.TemporaryDirectory() as folder:
        phantom, work = Path(folder) / "phantom", Path(folder) / "work"
        make_phantom(phantom, say=print)
        measure(phantom, work)


def _all(phantom: Path, work: Path) -> None:
    rows = [row for module in (ingestion, archive_at_scale) for row in module.measure(phantom, work)]
    print(table([*rows, *evaluation.measure(), *pretraining.short()]), figures_table(startup.measure()), sep="\n\n")


def _pretraining(phantom: Path, work: Path) -> None:
    in_memory, use_of_device = pretraining.measure()
    from_files, splits = pretraining_from_files.measure(phantom, work)
    print(table([*in_memory, *from_files]), figures_table([*splits, *use_of_device]), sep="\n\n")


def _million(phantom: Path, work: Path) -> None:
    print(figures_table(archive_at_scale.million(phantom, work, print)))


_MEASUREMENTS = {"all": _all, "pretraining": _pretraining, "million": _million}


if __name__ == "__main__":
    main()
