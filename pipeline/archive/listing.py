"""Finding the archive's files, and finding one of them again by its id.

Belongs here: walking folders, file ids, the private list of paths. Not here: opening a file.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.identity import file_id
from pipeline.errors import UserError
from pipeline.files import read_table, write_table

_FILES = pa.schema(
    [
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("path", pa.binary(), nullable=False),  # bytes: file names need not be UTF-8
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified_ns", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One regular file of the archive; `path` is relative to the archive's folder."""

    file_id: str
    path: str
    size: int
    modified_ns: int


def list_files(archive: Path, key: bytes) -> list[ArchiveFile]:
    """Every regular file below `archive`, hidden ones too, in the order of their paths' bytes.

    Symbolic links below the folder are not followed: what they point to is inside, and found there, or outside.
    Raises `UserError` where `archive` is missing, is no folder, cannot be listed or holds no file.
    """
    if not archive.exists():
        raise UserError(f"SONOTAG_ARCHIVE {archive} does not exist; `make phantom` makes a phantom clinic to try with.")
    if not archive.is_dir():
        raise UserError(f"SONOTAG_ARCHIVE {archive} is not a folder.")
    try:
        files = [_archive_file(key, path, status) for path, status in _walk(str(archive), "")]
    except OSError as error:
        raise UserError(f"SONOTAG_ARCHIVE {archive} holds a folder that cannot be listed: {error.strerror}.") from None
    if not files:
        raise UserError(f"SONOTAG_ARCHIVE {archive} holds no files (symbolic links are not followed).")
    return sorted(files, key=lambda file: os.fsencode(file.path))


def _archive_file(key: bytes, path: str, status: os.stat_result) -> ArchiveFile:
    return ArchiveFile(file_id(key, path), path, status.st_size, status.st_mtime_ns)


def _walk(root: str, below: str) -> Iterator[tuple[str, os.stat_result]]:
    """Relative POSIX path and status of every regular file; one that vanishes meanwhile is passed over."""
    pending = [below]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as entries:  # noqa: PTH118 - a million paths
            for entry in entries:
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(relative)
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield relative, status


def write_file_list(private: Path, archive: Path, files: list[ArchiveFile]) -> None:
    """Write `files.parquet` in the private folder: what `locate` and the image cache find files by."""
    table = pa.table(
        {
            "file_id": [file.file_id for file in files],
            "path": [os.fsencode(file.path) for file in files],
            "size": [file.size for file in files],
            "modified_ns": [file.modified_ns for file in files],
        },
        schema=_FILES.with_metadata({"archive": os.fsencode(archive.absolute())}),
    )
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_table(private / "files.parquet", table)


def read_file_list(private: Path) -> dict[str, ArchiveFile]:
    """The files of the last scan by file id; raises `UserError` where none has run yet."""
    columns = _file_list(private).to_pydict()
    return {
        file: ArchiveFile(file, os.fsdecode(path), size, modified)
        for file, path, size, modified in zip(*columns.values(), strict=True)
    }


def cannot_be_read(file: str, why: str) -> UserError:
    """The sentence for an archive file, named by its id, that the system does not let us read: a fault to mend."""
    return UserError(
        f"Archive file {file} cannot be read: {why} (`python -m pipeline.archive locate {file}` prints its path)."
    )


def locate(private: Path, identifier: str) -> Path:
    """The path of the archive file named by a file id or by a frame's id.

    Raises `UserError` where no scan has run yet, or the last one saw no such file.
    """
    table = _file_list(private)
    position = pc.index(table["file_id"], identifier.partition(":")[0]).as_py()
    if position < 0:
        raise UserError(f"No file {identifier} was in the archive when it was last indexed.")
    return Path(os.fsdecode(table.schema.metadata[b"archive"]), os.fsdecode(table["path"][position].as_py()))


def _file_list(private: Path) -> pa.Table:
    path = private / "files.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist yet: run the job `ingest` first.")
    return read_table(path)
