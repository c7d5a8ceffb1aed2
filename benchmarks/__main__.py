"""`python -m benchmarks` compares with peers; an argument measures one thing at length.

`python -m benchmarks pretraining`: training and its reading (4 minutes). `python -m benchmarks finetuning`: small
batches (2 minutes). `python -m benchmarks million`: indexing 1,000,000 files (6 minutes). `python -m benchmarks
phantom`: drawing the phantom, and what its grey levels give away (a minute). `python -m benchmarks realism`: its grey
levels and speckle beside those of the real pictures in `real_archive` of SONOTAG_SHARED_DATA (half a minute).
`python -m benchmarks near_duplicates`: planted near-duplicates found, and unrelated frames taken for some, of phantom
and real pictures (3 minutes). `python -m benchmarks near_million`: the same comparison of 1,000,000 thumbnails.

Belongs here: these commands. Not here: any measurement.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks import (
    archive_at_scale,
    evaluation,
    finetuning,
    ingestion,
    near_duplicates,
    phantom,
    pretraining,
    pretraining_from_files,
    realism,
    shortcuts,
    startup,
)
from benchmarks.measure import figures_table, table
from pipeline.phantom.clinic import make_phantom


def main() -> None:
    """Make a phantom in a temporary folder, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("what", nargs="?", choices=_MEASUREMENTS, default="all")
    measure = _MEASUREMENTS[parser.parse_args().what]
    with tempfile.TemporaryDirectory() as folder:
        clinic, work = Path(folder) / "phantom", Path(folder) / "work"
        make_phantom(clinic, log=print)
        measure(clinic, work)


def _all(clinic: Path, work: Path) -> None:
    rows = [row for module in (ingestion, archive_at_scale) for row in module.measure(clinic, work)]
    rows += [*phantom.measure(), *evaluation.measure(), *pretraining.short(), *finetuning.short()]
    print(table(rows), figures_table(startup.measure()), sep="\n\n")


def _pretraining(clinic: Path, work: Path) -> None:
    in_memory, use_of_device = pretraining.measure()
    from_files, splits = pretraining_from_files.measure(clinic, work)
    print(table([*in_memory, *from_files]), figures_table([*splits, *use_of_device]), sep="\n\n")


def _finetuning(_clinic: Path, _work: Path) -> None:
    print(table(finetuning.measure()))


def _million(clinic: Path, work: Path) -> None:
    print(figures_table(archive_at_scale.million(clinic, work, print)))


def _phantom(_clinic: Path, _work: Path) -> None:
    print(table(phantom.measure()), figures_table(shortcuts.figures()), sep="\n\n")


def _realism(_clinic: Path, _work: Path) -> None:
    archive = Path(os.environ.get("SONOTAG_SHARED_DATA", "")) / "real_archive"
    if not archive.is_dir():
        raise SystemExit("SONOTAG_SHARED_DATA names no folder that holds a real_archive: nothing to compare with.")
    print(figures_table(realism.figures(archive)))


def _near_duplicates(_clinic: Path, _work: Path) -> None:
    print(figures_table(near_duplicates.figures()))


def _near_million(_clinic: Path, _work: Path) -> None:
    print(figures_table(near_duplicates.million()))


_MEASUREMENTS = {
    "all": _all,
    "phantom": _phantom,
    "realism": _realism,
    "pretraining": _pretraining,
    "finetuning": _finetuning,
    "million": _million,
    "near_duplicates": _near_duplicates,
    "near_million": _near_million,
}


if __name__ == "__main__":
    main()
