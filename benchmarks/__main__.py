"""`python -m benchmarks [NAME]` compares sonotag with peers; with a name, it runs one longer measurement.

- `pretraining` (4 minutes): training, with and without reading.
- `finetuning` (2 minutes): training in small batches.
- `views` (a minute): the share of a contrastive training that its views take.
- `frozen` (minutes): processor time to score a frozen encoder, beside fine-tuning one model of the same task.
- `million` (6 minutes): indexing 1,000,000 files.
- `phantom` (1 minute): drawing the phantom, and which labels its grey levels predict.
- `realism` (half a minute): its grey levels and speckle compared with `real_archive` in SONOTAG_SHARED_DATA.
- `probes` (2 minutes): how often pictures suggest the shape of a probe, on the phantom and on `real_archive` and
  `real_archive_more` in SONOTAG_SHARED_DATA; names of probes read, of `real_tags/probes.csv` there.
- `audit` (a quarter of an hour or more): wrong tags that the job `audit` finds in three phantoms, and in `real_archive`
  with swapped labels if SONOTAG_SHARED_DATA is set.
- `near_duplicates` (3 minutes): detection of planted near-duplicates, and false pairs.
- `descriptions` (seconds): how often suggested groups of study descriptions are right.
- `near_million` (7 minutes): the same comparison of 1,000,000 thumbnails.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks import (
    archive_at_scale,
    audit,
    descriptions,
    evaluation,
    finetuning,
    frozen,
    ingestion,
    near_duplicates,
    phantom,
    pretraining,
    pretraining_from_files,
    probe_pictures,
    probes,
    realism,
    shortcuts,
    startup,
    views,
)
from benchmarks.measure import figures_table, table
from pipeline.phantom.clinic import make_phantom


def main() -> None:
    """Make a phantom in a temporary folder, run the measurement and print its tables."""
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


def _views(_clinic: Path, _work: Path) -> None:
    print(figures_table(views.figures()))


def _frozen(clinic: Path, work: Path) -> None:
    print(figures_table(list(frozen.figures(clinic, work))))


def _million(clinic: Path, work: Path) -> None:
    print(figures_table(archive_at_scale.million(clinic, work, print)))


def _phantom(_clinic: Path, _work: Path) -> None:
    print(table(phantom.measure()), figures_table(shortcuts.figures()), sep="\n\n")


def _realism(_clinic: Path, _work: Path) -> None:
    print(figures_table(realism.figures(_shared("real_archive"))))


def _probes(clinic: Path, _work: Path) -> None:
    shared = Path(os.environ.get("SONOTAG_SHARED_DATA", ""))
    names = shared / "real_tags" / "probes.csv"
    found = probes.figures(names) if names.is_file() else []
    print(figures_table([*found, *probe_pictures.figures(clinic, shared)]))


def _shared(folder: str) -> Path:
    path = Path(os.environ.get("SONOTAG_SHARED_DATA", "")) / folder
    if not path.is_dir():
        raise SystemExit(f"SONOTAG_SHARED_DATA must name a folder with the subfolder {folder}, which is read here.")
    return path


def _near_duplicates(_clinic: Path, _work: Path) -> None:
    print(figures_table(near_duplicates.figures()))


def _audit(_clinic: Path, work: Path) -> None:
    real = _shared("real_archive").parent if "SONOTAG_SHARED_DATA" in os.environ else None
    print(figures_table(list(audit.figures(work, real))))


def _descriptions(_clinic: Path, _work: Path) -> None:
    print(figures_table(descriptions.figures(Path(os.environ.get("SONOTAG_SHARED_DATA", "")))))


def _near_million(_clinic: Path, _work: Path) -> None:
    print(figures_table(near_duplicates.million()))


_MEASUREMENTS = {
    "all": _all,
    "phantom": _phantom,
    "realism": _realism,
    "probes": _probes,
    "pretraining": _pretraining,
    "finetuning": _finetuning,
    "views": _views,
    "frozen": _frozen,
    "million": _million,
    "near_duplicates": _near_duplicates,
    "audit": _audit,
    "descriptions": _descriptions,
    "near_million": _near_million,
}


if __name__ == "__main__":
    main()
