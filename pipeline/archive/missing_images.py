"""Stops the index if many images are missing at once, as after a failed mount, until a person confirms the loss.

A large loss is at least `MIN_IMAGES` images, and more than a third of the images, or of the patients, or all images of
a folder with several patients.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.location import without_credentials
from pipeline.errors import UserError
from pipeline.files import read_table, write_table
from pipeline.mirrored import read_if_intact

MIN_IMAGES = 5
"""Fewer missing images never stop the index."""
SEVERAL = 3
"""Patients in one folder; a folder with fewer may be one patient's, which people do delete."""
_SHARE = 3  # a large loss is more than one of so many

_BEFORE = ("path", "file_id", "container", "sop_instance", "patient")
_FILES = pa.schema([pa.field("file_id", pa.string(), nullable=False)])
_REFUSED = "lost.parquet"
_CONFIRMED = "gone.parquet"


@dataclass(frozen=True)
class Loss:
    """How many known images are missing; numbers only, since folders can be named after patients."""

    images: int
    of_images: int
    patients: int
    of_patients: int
    folders: int
    """Folders of several patients without any image left; nested folders count, too."""

    @property
    def is_large(self) -> bool:
        """Whether a person has to confirm it."""
        of_patients = self.patients >= SEVERAL and _SHARE * self.patients > self.of_patients
        return self.images >= MIN_IMAGES and (_SHARE * self.images > self.of_images or of_patients or self.folders > 0)

    def sentence(self, archive: str) -> str:
        """The error message, without a path below the archive."""
        folders = f", among them all of {self.folders} folder(s) with several patients" if self.folders else ""
        return (
            f"{self.images} of {self.of_images} known images and {self.patients} of {self.of_patients} patients are no "
            f"longer in SONOTAG_ARCHIVE {without_credentials(archive)}, or can no longer be read{folders}; nothing was "
            "changed. If a disk or share is not mounted, mount it and run the job `ingest` again; if they are gone for "
            "good, run `python -m pipeline.archive gone`, and then the job."
        )


def known_images(private: Path, archive: str) -> pa.Table:
    """The image files of `archive` (normalized) that the last scan found there (columns `_BEFORE`)."""
    path = private / "scan.parquet"
    none = pa.table({name: pa.array([], pa.string()) for name in _BEFORE})
    rows = read_if_intact(path, lambda path: read_table(path, [*_BEFORE, "reason", "deleted", "is_zip"]))
    if rows is None or (rows.schema.metadata or {}).get(b"archive") != os.fsencode(archive):
        return none
    there = pc.and_(pc.is_null(rows["reason"]), pc.invert(pc.or_(rows["deleted"], rows["is_zip"])))
    return rows.filter(there).select(_BEFORE)


def refuse_loss(private: Path, archive: str, before: pa.Table, paths: pa.Array, instances: pa.Array) -> None:
    """Raise `UserError` if too many of the images `before` are missing, by path and by instance.

    Images that a person has confirmed to be gone do not count. Records the missing images for `confirm`.
    """
    lost = _lost(private, before, paths, instances)
    loss = _measured(before, lost)
    if not loss.is_large:
        (private / _REFUSED).unlink(missing_ok=True)
        return
    write_table(private / _REFUSED, pa.table([before["file_id"].filter(lost)], schema=_FILES))
    raise UserError(loss.sentence(archive))


def confirm(private: Path) -> int:
    """Confirm the loss for which the last index stopped, for the next one; returns how many images are missing.

    Raises `UserError` if no index has stopped.
    """
    refused = private / _REFUSED
    if not refused.is_file():
        raise UserError("There is nothing to confirm: no run has stopped because images are gone.")
    images: int = read_table(refused, _FILES.names).num_rows
    refused.replace(private / _CONFIRMED)
    return images


def delete_confirmation(private: Path) -> None:
    """Delete the confirmation, which is valid for one index."""
    (private / _CONFIRMED).unlink(missing_ok=True)


def _lost(private: Path, before: pa.Table, paths: pa.Array, instances: pa.Array) -> pa.ChunkedArray:
    there = pc.or_(
        pc.is_in(before["path"], value_set=paths),
        pc.is_in(before["sop_instance"].cast(pa.string()), value_set=instances),
    )
    confirmed = read_if_intact(private / _CONFIRMED, lambda path: read_table(path, _FILES.names))
    if confirmed is not None:
        there = pc.or_(there, pc.is_in(before["file_id"], value_set=confirmed["file_id"]))
    return pc.invert(there)


def _measured(before: pa.Table, lost: pa.ChunkedArray) -> Loss:
    gone, left = before.filter(lost), before.filter(pc.invert(lost))
    patients = pc.count_distinct(before["patient"]).as_py()
    patients_lost = patients - pc.count_distinct(left["patient"]).as_py()
    folders = _emptied(gone, left) if gone.num_rows >= MIN_IMAGES else 0
    return Loss(gone.num_rows, before.num_rows, patients_lost, patients, folders)


def _emptied(gone: pa.Table, left: pa.Table) -> int:
    """How many folders had images of several patients and have none now."""
    whose: dict[bytes, set[str]] = {}
    for folders, patient in zip(_folders(gone), gone["patient"].to_pylist(), strict=True):
        for folder in folders:
            whose.setdefault(folder, set()).add(patient)
    several = {folder for folder, patients in whose.items() if len(patients) >= SEVERAL}
    for folders in _folders(left) if several else ():
        several.difference_update(folders)
    return len(several)


def _folders(rows: pa.Table) -> Iterator[list[bytes]]:
    """For each of the images `rows`, the folders below the archive's root that contain its file, or the file's zip."""
    for file in pc.coalesce(rows["container"], rows["path"]).to_pylist():
        parts = file.split(b"/")[:-1]
        yield [b"/".join(parts[: depth + 1]) for depth in range(len(parts))]
