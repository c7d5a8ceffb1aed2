"""The private list of the archive's known files: comparing it with the archive, and finding a file by its id."""

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import code_versions
from pipeline.archive.source import ArchiveFile, walk
from pipeline.archive.zips import SEPARATOR
from pipeline.errors import DamagedError, UserError
from pipeline.files import damaged_if_unreadable, make_folder, read_table, write_table
from pipeline.mirrored import read_if_intact
from pipeline.privacy.erasure_list import FORGOTTEN, ErasureList
from pipeline.privacy.identity import file_id
from pipeline.tables import DICOM_INDEX, LABEL_FIELDS

_BATCH = 50_000

LISTED = pa.schema(
    [
        pa.field("path", pa.binary(), nullable=False),  # bytes: file names need not be UTF-8
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)
"""A file in its present state; `version` changes with its content."""

# Texts that many rows share, as dictionaries: 4 bytes per row in memory instead of 10 to 40.
_SHARED = {
    *("series", "study", "patient_from", "sop_class", "transfer_syntax", "photometric", "manufacturer", "model"),
    *("transducer_type", "transducer_data", "unreadable_fields", "for_labels", "descriptions"),
}
# LABEL_FIELDS and the description fields as JSON: a column for each would take 100 bytes per row.
_AS_JSON = (pa.field("for_labels", pa.string()), pa.field("descriptions", pa.string()))
_CHOSEN = {"study_description", "described_by"}  # from `descriptions`, by the recipe
RECORD_FIELDS = [
    pa.field(field.name, pa.dictionary(pa.int32(), pa.string()) if field.name in _SHARED else field.type)
    for field in (*DICOM_INDEX.schema, *_AS_JSON)
    if field.name not in {"file_id", *_CHOSEN, *LABEL_FIELDS.names}
]

REJECTION_FIELDS = [pa.field("reason", pa.string()), pa.field("detail", pa.string())]

KNOWN = pa.schema(
    [
        *LISTED,
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("container", pa.binary()),  # path of the zip that the file is a member of
        pa.field("is_zip", pa.bool_(), nullable=False),  # not counted as a file, but its members are
        pa.field("settled", pa.bool_(), nullable=False),  # False: read again, even if unchanged
        pa.field("tries", pa.int64(), nullable=False),  # runs in which reading this state was interrupted
        pa.field("deleted", pa.bool_(), nullable=False),
        *REJECTION_FIELDS,
        pa.field("pixels", pa.string()),  # digest of all frames, if another file claims the same instance
        pa.field("draw", pa.float64()),
        pa.field("number", pa.string()),  # pseudonym of PatientID without its issuer; null if absent
        *RECORD_FIELDS,
    ]
)
"""A file that was read: a record's fields, or the reason for its rejection."""


Tries = Mapping[tuple[bytes, int, str], int]
"""In how many runs reading a file was interrupted, by its path, size and version."""


def list_files(archive: str) -> pa.Table:
    """Every regular file of `archive` (schema LISTED) sorted by the bytes of their paths; raises as `source.walk`."""
    batches = []
    rows: list[ArchiveFile] = []
    for listed in walk(archive):
        rows.append(listed)
        if len(rows) == _BATCH:
            batches.append(_batch(rows))
            rows = []
    table = pa.Table.from_batches([*batches, _batch(rows)], schema=LISTED)
    return table.take(pc.sort_indices(table["path"]))


def _batch(rows: list[ArchiveFile]) -> pa.RecordBatch:
    columns = [[os.fsencode(row.path) for row in rows], [row.size for row in rows], [row.version for row in rows]]
    return pa.record_batch(columns, schema=LISTED)


def listed_rows(table: pa.Table) -> Iterator[ArchiveFile]:
    """The rows of a table with the columns of LISTED, a batch at a time."""
    for batch in table.select(LISTED.names).to_batches(max_chunksize=_BATCH):
        for path, size, version in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield ArchiveFile(os.fsdecode(path), size, version)


@dataclass(frozen=True)
class Compared:
    """The archive compared with the known files: rows that stay, files to read, rows of files that are gone."""

    unchanged: pa.Table
    to_read: pa.Table
    gone: pa.Table
    tries: Tries


def compare(listed: pa.Table, known: pa.Table) -> Compared:
    """Compare the files `listed` (LISTED) with the rows `known` (KNOWN) of earlier runs.

    A file with the size and version of a settled row is not read again, nor are a zip's members. Files in a folder that
    cannot be listed now are neither gone nor read.
    """
    at = pc.index_in(listed["path"], value_set=known["path"])
    same = pc.fill_null(
        pc.and_(
            pc.and_(pc.equal(known["size"].take(at), listed["size"]), known["settled"].take(at)),
            pc.and_(pc.equal(known["version"].take(at), listed["version"]), pc.invert(known["deleted"].take(at))),
        ),
        False,
    )
    zips = known["path"].take(at.filter(same)).filter(known["is_zip"].take(at.filter(same)))
    kept = pc.is_in(known["path"], value_set=listed["path"].filter(same))
    kept = pc.or_(kept, pc.and_(pc.is_in(known["container"], value_set=zips), pc.invert(known["deleted"])))
    changed = pc.is_in(known["path"], value_set=listed["path"])
    seen = pc.or_(changed, pc.is_in(known["container"], value_set=listed["path"]))
    unseen = pc.and_(_below_unlisted(known["path"], listed["path"]), pc.invert(pc.or_(seen, known["deleted"])))
    kept = pc.or_(kept, unseen)
    gone = known.filter(pc.invert(pc.or_(pc.or_(kept, changed), _is_folder(known["path"]))))
    return Compared(select_rows(known, kept), listed.filter(pc.invert(same)), gone, _tries(known))


def _is_folder(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.ends_with(paths, b"/")


def _below_unlisted(known: pa.ChunkedArray, listed: pa.ChunkedArray) -> pa.ChunkedArray:
    """A flag per `known` path: whether it is in one of the folders in `listed`, which could not be listed."""
    below = pa.chunked_array([pa.array([False] * len(known), pa.bool_())])
    for folder in listed.filter(_is_folder(listed)).to_pylist():
        below = pc.or_(below, pc.and_(pc.starts_with(known, folder), pc.not_equal(known, folder)))
    return below


def _tries(known: pa.Table) -> Tries:
    if "tries" not in known.schema.names:  # only the scan reads this column
        return {}
    interrupted = known.filter(pc.greater(known["tries"], 0)).select(["path", "size", "version", "tries"])
    return {(row["path"], row["size"], row["version"]): row["tries"] for row in interrupted.to_pylist()}


def select_rows(rows: pa.Table, kept: pa.ChunkedArray) -> pa.Table:
    """The rows with the flag `kept`; without a copy if these are all."""
    return rows if pc.all(kept).as_py() else rows.filter(kept)


def as_deleted(gone: pa.Table) -> pa.Table:
    """Rows of files that are gone, marked as deleted."""
    at = gone.schema.get_field_index("deleted")
    return gone.set_column(at, KNOWN.field("deleted"), pa.array([True] * gone.num_rows, pa.bool_()))


@dataclass(frozen=True, slots=True)
class Origin:
    """What determines a list besides the files: the archive, the key (as `key_check`) and the modalities.

    A list of another origin is not used.
    """

    archive: str
    key_check: str
    modalities: tuple[str, ...]

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """As the metadata of a table."""
        return {
            b"archive": os.fsencode(self.archive),
            b"key": self.key_check.encode(),
            b"modalities": " ".join(sorted(set(self.modalities))).encode(),
            b"code": code_versions.INDEX.encode(),
        }


class Journal:
    """Rows read since the last complete list, in parts, so that a killed run resumes."""

    def __init__(self, private: Path, origin: Origin) -> None:
        self._folder, self._metadata = private / "scan", origin.metadata
        self._parts = len(list(self._folder.glob("*.parquet")))

    def add(self, rows: pa.Table) -> None:
        """Write `rows` (KNOWN)."""
        write_table(self._folder / f"{self._parts:06d}.parquet", rows.replace_schema_metadata(self._metadata))
        self._parts += 1


def read_known(private: Path, origin: Origin, columns: Sequence[str] = KNOWN.names) -> pa.Table:
    """The rows (`columns` of KNOWN) of the last list and of a killed run's journal, the latest row of each path.

    Empty if there is none, or if it has another origin.
    """
    schema = pa.schema([KNOWN.field(name) for name in columns])
    wanted = origin.metadata
    paths = [*sorted((private / "scan").glob("*.parquet"), reverse=True), private / "scan.parquet"]
    found = (read_if_intact(path, partial(_rows_of, wanted, schema)) for path in paths)
    tables = [rows for rows in found if rows is not None]
    if len(tables) < 2:
        return tables[0] if tables else schema.empty_table()
    rows = pa.concat_tables(tables)
    first = pa.table({"path": rows["path"], "row": pa.array(range(rows.num_rows))}).group_by("path")
    return rows.take(first.aggregate([("row", "min")])["row_min"].sort())


def _rows_of(origin: dict[bytes, bytes], schema: pa.Schema, path: Path) -> pa.Table | None:
    """The rows of a list; None if it has another origin."""
    with damaged_if_unreadable(path):
        metadata = pq.read_schema(path).metadata or {}
        return read_table(path, schema.names).cast(schema) if metadata == origin else None


def write_known(private: Path, origin: Origin, rows: pa.Table) -> None:
    """Write the complete list, and delete the journal."""
    make_folder(private)
    write_table(private / "scan.parquet", rows.replace_schema_metadata(origin.metadata))
    shutil.rmtree(private / "scan", ignore_errors=True)


def known_files(private: Path) -> pa.Table:
    """The rows (KNOWN) of the last scan; raises `UserError` if there is none, or another version wrote it."""
    path = private / "scan.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist yet: run the job `ingest` first.")
    rows = read_table(path)
    if rows.schema.names != KNOWN.names:
        raise UserError(f"{path} was written by another version: run the job `ingest` first.")
    return rows


@dataclass(frozen=True)
class Traces:
    """Pseudonyms by which tables name erased patients, their SOP instances, and ids of their files that are present."""

    patients: frozenset[str]
    instances: frozenset[str]
    files: frozenset[str]


def without_erased(rows: pa.Table, erased: ErasureList) -> tuple[pa.Table, Traces]:
    """`rows` (KNOWN) in which files of erased patients keep nothing but their existence; and what was removed."""
    if not erased.patients:
        return rows, Traces(frozenset(), frozenset(), frozenset())
    covered = erased.covered(rows)
    found = rows.select(["sop_instance", "file_id", "deleted"]).filter(covered)
    present = found["file_id"].filter(pc.invert(found["deleted"]))
    instances = frozenset(found["sop_instance"].drop_null().to_pylist())
    traces = Traces(frozenset(erased.patients), instances, frozenset(present.to_pylist()))
    if not found.num_rows:
        return rows, traces
    values = dict.fromkeys(("pixels", "draw", "number", *(field.name for field in RECORD_FIELDS)))
    for name, value in (values | {"reason": FORGOTTEN.reason.value, "detail": FORGOTTEN.detail}).items():
        field = KNOWN.field(name)
        column = pc.if_else(covered, pa.scalar(value, field.type), rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    return rows, traces


def unsettle(private: Path, files: Collection[str]) -> None:
    """Make the next scan read `files` (ids) again, even if unchanged; of a zip's member, the whole zip.

    The caller holds the archive lock.
    """
    if not files:
        return
    known = known_files(private)
    named = pc.is_in(known["file_id"], value_set=pa.array(sorted(files), pa.string()))
    zips = known["container"].filter(named).drop_null()
    again = pc.or_(named, pc.is_in(known["path"], value_set=zips))
    settled = pc.and_(known["settled"], pc.invert(again))
    at = known.schema.get_field_index("settled")
    write_table(private / "scan.parquet", known.set_column(at, known.schema.field(at), settled))


def known_parts(private: Path) -> dict[Path, pa.Table]:
    """The rows (KNOWN) of the last scan and of each part of a killed scan's journal, by file.

    Raises as `known_files`.
    """
    known = {private / "scan.parquet": known_files(private)}
    parts = ((path, read_if_intact(path, read_table)) for path in sorted((private / "scan").glob("*.parquet")))
    return known | {path: rows for path, rows in parts if rows is not None and rows.schema.names == KNOWN.names}


def locate(private: Path, identifier: str, archive: str | None = None, key: bytes | None = None) -> str:
    """The path or URL of the archive file with this file id or frame id; a zip's member is below its zip's path.

    Searches the last list, the journal of an unfinished scan and, given `archive` and the pseudonym `key`, all present
    files. Raises `UserError` if there is no such file.
    """
    wanted = identifier.partition(":")[0]
    for path in [*sorted((private / "scan").glob("*.parquet"), reverse=True), private / "scan.parquet"]:
        with suppress(OSError, DamagedError, KeyError):  # missing, damaged, or of another version
            known = read_table(path, ["file_id", "path"])
            position = pc.index(known["file_id"], wanted).as_py()
            if position >= 0:
                return _full_path(os.fsdecode(known.schema.metadata[b"archive"]), known["path"][position].as_py())
    if archive and key:
        with suppress(UserError):  # it is missing or empty
            for listed in walk(archive):
                if file_id(key, listed.path) == wanted:
                    return _full_path(archive, os.fsencode(listed.path))
    raise UserError(f"No file {identifier} was in the archive when it was last indexed.")


def _full_path(archive: str, path: bytes) -> str:
    return f"{archive.rstrip('/')}/{os.fsdecode(path).replace(SEPARATOR, '/')}"
