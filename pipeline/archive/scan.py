"""Indexes the archive: every file becomes a record or a rejection, and only new and changed files are read."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.header_reader import HeaderReader, Row, Zip, digest_pixels, index_row
from pipeline.archive.listing import (
    KNOWN,
    RECORD_FIELDS,
    Journal,
    Origin,
    Traces,
    Tries,
    as_deleted,
    compare,
    list_files,
    listed_rows,
    read_known,
    select_rows,
    without_erased,
    write_known,
)
from pipeline.archive.location import LINK, SPECIAL, is_remote, normalized, without_credentials
from pipeline.archive.missing_images import delete_confirmation, known_images, refuse_loss
from pipeline.archive.source import ArchiveFile
from pipeline.archive.workers import Failed, FaultWatch, after_tries, each_in_worker
from pipeline.archive.zips import SEPARATOR
from pipeline.dicom.header import ULTRASOUND, Header
from pipeline.dicom.rejections import Reason, Rejection, UnreadableFile
from pipeline.errors import UnreachableError, UserError
from pipeline.files import write_table
from pipeline.privacy.descriptions import publish_descriptions
from pipeline.privacy.erasure_list import FORGOTTEN, ErasureList
from pipeline.privacy.identity import file_id, key_check
from pipeline.privacy.phantom_marker import NO_PHANTOM, PHANTOM, has_marker, is_phantom
from pipeline.progress import Log, Progress, silent
from pipeline.recipe.archive import Archive
from pipeline.tables import DELETED_FILES, DICOM_INDEX, LABEL_FIELDS, REJECTED_FILES

_PATIENTS = pa.schema(
    [
        pa.field("patient", pa.string(), nullable=False),
        pa.field("draw", pa.float64(), nullable=False),
        pa.field("number", pa.string()),
    ]
)
_JOURNAL_EVERY = 20_000  # files that a killed run has to read again at most
_LARGE_ZIP = 1000  # members; a smaller one is read within seconds


@dataclass(frozen=True)
class Index:
    """The index: `records` (DICOM_INDEX), `rejected` (REJECTED_FILES), `deleted` (DELETED_FILES).

    `files` counts the archive's files, including members of zips and folders that cannot be listed; `read` of them
    were new or changed, or unreadable in the previous run.
    """

    records: pa.Table
    rejected: pa.Table
    deleted: pa.Table
    files: int
    read: int

    @property
    def unreadable(self) -> int:
        """How many of the rejected files could not be read now; the next run reads them again."""
        return sum(not Reason(reason).is_settled for reason in self.rejected["reason"].to_pylist())


def index_archive(
    archive: str,
    private: Path,
    key: bytes,
    settings: Archive,
    log: Log = silent,
    erase: Callable[[Traces], object] = lambda _: None,
) -> Index:
    """Read the headers of new and changed files in `archive`, a folder or URL, and return the complete index.

    Writes `scan.parquet`, `patients.parquet` and `descriptions.parquet` to `private`. Before that, it passes traces of
    erased patients to `erase`. The caller holds the archive lock. Raises `UserError` if the archive is missing, empty
    or without an image of the modalities in `settings`, if it contains the private folder, if half of the latest
    files fail with transient errors, and if patients were erased under another key.
    """
    archive = normalized(archive)
    _refuse_store_inside(archive, private)
    phantom = is_phantom(archive)
    if phantom or has_marker(archive):
        log(PHANTOM if phantom else NO_PHANTOM)
    check = key_check(key)
    erased = ErasureList(private, check)
    known, read = _Scan(Origin(archive, check, settings.modalities), private, erased, erase).run(key, log)
    files = known.num_rows - pc.sum(pc.or_(known["deleted"], known["is_zip"]), min_count=0).as_py()
    records, rejected = _split(known)
    _warn_of_links(rejected, log)
    deleted = _deleted_table(known.select([*DELETED_FILES.schema.names, "is_zip"]).filter(known["deleted"]))
    del known  # its other columns take 150 MB for a million files
    if not records.num_rows:
        raise UserError(_nothing_found(archive, settings.modalities, rejected))
    _write_patients(private, records)
    if files != records.num_rows + rejected.num_rows:
        raise RuntimeError("The ledger of files does not balance.")
    records = _described(records, settings.descriptions)
    records = publish_descriptions(private, records, 1 if phantom else settings.description_patients)
    columns = dict(zip(records.column_names, records.columns, strict=True))
    del records
    return Index(_record_table(columns), _rejected_table(rejected), deleted, files, read)


@dataclass(frozen=True)
class _Scan:
    """Updates the private list of files."""

    origin: Origin
    private: Path
    erased: ErasureList
    erase: Callable[[Traces], object]

    def run(self, key: bytes, log: Log) -> tuple[pa.Table, int]:
        """Rows of all files (KNOWN), which it writes to the private folder, and how many files were read."""
        origin = self.origin
        compared = compare(list_files(origin.archive), read_known(self.private, origin))
        reader = HeaderReader(origin.archive, origin.modalities)
        journal = Journal(self.private, origin)
        fresh = _Reader(reader, key, journal, compared.tries, self.erased, log).read(compared.to_read)
        read, gone = fresh.num_rows, as_deleted(compared.gone)
        gone = gone.filter(pc.invert(pc.is_in(gone["path"], value_set=fresh["path"])))  # those came back
        parts = [compared.unchanged, fresh, gone]
        nothing_new = not read and not gone.num_rows
        del compared, fresh, gone  # only `parts` refers to them, and releases them
        known = self._without_erased(parts[0] if nothing_new else _together(parts))
        known = _with_pixels(origin.archive, known, log)
        self._refuse_loss(known)
        write_known(self.private, origin, known)
        delete_confirmation(self.private)
        return known, read

    def _refuse_loss(self, known: pa.Table) -> None:
        """Raise `UserError` if too many images of the last scan are gone or unreadable."""
        sound = pc.or_(pc.is_null(known["reason"]), pc.is_in(known["reason"], value_set=pa.array(_NO_LOSS)))
        there = known.filter(pc.and_(sound, pc.invert(known["deleted"])))
        instances = there["sop_instance"].filter(pc.is_null(there["reason"])).cast(pa.string())
        before = known_images(self.private, self.origin.archive)
        refuse_loss(self.private, self.origin.archive, before, there["path"], instances)

    def _without_erased(self, known: pa.Table) -> pa.Table:
        """`known` without fields of erased patients: a later file can reveal that a study is theirs."""
        known, traces = without_erased(known, self.erased)
        if traces.instances or traces.files:
            self.erase(traces)
        return known


def _warn_of_links(rejected: pa.Table, log: Log) -> None:
    """Log a warning about symbolic links, which may hide a whole site."""
    links = pc.sum(pc.equal(rejected["reason"], Reason.SYMBOLIC_LINK.value), min_count=0).as_py()
    if links:
        log(f"Not followed: {links} symbolic links in the archive. They are in `quarantine` as symbolic_link.")


def _refuse_store_inside(archive: str, private: Path) -> None:
    if not is_remote(archive) and private.resolve().is_relative_to(Path(archive).resolve()):
        raise UserError(f"SONOTAG_STORE is inside SONOTAG_ARCHIVE {archive}: the archive is never written to.")


def _together(parts: list[pa.Table]) -> pa.Table:
    """All rows of `parts` (KNOWN) sorted by path; empties `parts`, since memory would not hold both."""
    rows = pa.concat_tables(parts)
    parts.clear()
    order = pc.sort_indices(rows["path"])
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    del rows
    return pa.table([columns.pop(name).take(order).combine_chunks() for name in KNOWN.names], schema=KNOWN)


class _Reader:
    """Reads files in workers into rows of KNOWN, and journals them."""

    def __init__(
        self, reader: HeaderReader, key: bytes, journal: Journal, tries: Tries, erased: ErasureList, log: Log
    ) -> None:
        self._reader, self._journal, self._erased, self._log = reader, journal, erased, log
        self._key, self._tries, self._faults = key, tries, FaultWatch()
        self._rows: list[Row] = []
        self._parts: list[pa.Table] = []
        self._zips: list[tuple[ArchiveFile, Zip]] = []

    def read(self, files: pa.Table) -> pa.Table:
        """Rows of `files` (LISTED) and of the members of zips among them.

        Raises `UnreachableError` if too many of them cannot be read; the journal has the rows until then.
        """
        unopened = pc.is_in(files["version"], value_set=pa.array(list(_UNOPENED)))
        for listed in listed_rows(files.filter(unopened)):
            self._add(listed, _reason(_UNOPENED[listed.version]))
        files = files.filter(pc.invert(unopened))
        try:
            with Progress("headers", files.num_rows, "files", self._log) as progress:
                for listed, row in self._outcomes(listed_rows(files), progress):
                    self._add(listed, row)
            for zipped, container in self._zips:
                self._read_members(zipped, container)
        except UnreachableError:  # so the share interrupted reading, not the files
            self._rows = [row for row in self._rows if row["settled"]]
            self._keep()
            raise
        self._keep()
        return pa.concat_tables([KNOWN.empty_table(), *self._parts])

    def _outcomes(self, files: Iterable[ArchiveFile], progress: Progress) -> Iterator[tuple[ArchiveFile, Row]]:
        """Each file with the fields of its row; collects zips, and skips files that vanished."""
        files, sent = tee(files)  # few are pending at a time
        results = each_in_worker(self._reader, sent, readable=[self._reader.archive])
        for listed, result in zip(files, results, strict=True):
            progress.advance()
            self._faults.note(result)
            match result:
                case Zip():
                    self._zips.append((listed, result))
                case UnreadableFile(vanished=True):
                    continue
                case UnreadableFile():
                    yield listed, _reason(Rejection(Reason.UNREADABLE, result.why))
                case Rejection():
                    yield listed, _reason(result)
                case Failed():
                    yield listed, self._failed(listed, result.rejection)
                case Header():
                    yield listed, self._row(result)

    def _row(self, header: Header) -> Row:
        try:
            return index_row(header, self._key)
        except Exception:  # a worker that a hostile file controls may send anything
            return _reason(_NOT_STORED)

    def _failed(self, listed: ArchiveFile, rejection: Rejection) -> Row:
        if rejection.reason is not Reason.INTERRUPTED:
            return _reason(rejection)
        tries = 1 + self._tries.get((os.fsencode(listed.path), listed.size, listed.version), 0)
        return {"tries": tries} | _reason(after_tries(rejection, tries))

    def _read_members(self, zipped: ArchiveFile, container: Zip) -> None:
        """Add rows of a zip's members, then its own, so that a killed run has the whole zip or nothing of it."""
        within = {"container": os.fsencode(zipped.path)}
        sound: list[ArchiveFile] = []
        settled = True
        for member in container.members:
            listed = ArchiveFile(f"{zipped.path}{SEPARATOR}{member.name}", member.size, zipped.version)
            if member.problem:
                self._add(listed, within | _reason(member.problem))
            else:
                sound.append(listed)
        log = self._log if len(sound) >= _LARGE_ZIP else silent  # no line each for thousands of small ones
        with Progress("members of a zip", len(sound), "files", log) as progress:
            for listed, row in self._outcomes(sound, progress):
                settled &= _is_settled(row)
                self._add(listed, within | row)
        self._add(zipped, {"is_zip": True, "settled": settled})

    def _add(self, listed: ArchiveFile, row: Row) -> None:
        if self._erased.covers(row):
            row = {name: row[name] for name in ("container",) if name in row} | _reason(FORGOTTEN)
        self._rows.append(
            {
                "path": os.fsencode(listed.path),
                "size": listed.size,
                "version": listed.version,
                "file_id": file_id(self._key, listed.path),
                "is_zip": False,
                "settled": _is_settled(row),
                "tries": 0,
                "deleted": False,
                **row,
            }
        )
        if len(self._rows) >= _JOURNAL_EVERY:
            self._keep()

    def _keep(self) -> None:
        if self._rows:
            self._parts.append(_known_table(self._rows))
            self._journal.add(self._parts[-1])
            self._rows = []


def _known_table(rows: list[Row]) -> pa.Table:
    """`rows` as KNOWN; a row whose values do not fit, such as a number of 20 digits, becomes a rejection."""
    try:
        return pa.Table.from_pylist(rows, schema=KNOWN)
    except Exception:  # ArrowException, OverflowError, UnicodeError, TypeError …
        if len(rows) > 1:
            return pa.concat_tables([_known_table([row]) for row in rows])
        file_fields = {name: rows[0][name] for name in _FILE_FIELDS if name in rows[0]}
        return pa.Table.from_pylist([file_fields | _reason(_NOT_STORED)], schema=KNOWN)


_FILE_FIELDS = ("path", "size", "version", "file_id", "container", "is_zip", "settled", "tries", "deleted")
_NOT_STORED = Rejection(Reason.UNREADABLE_HEADER, "a value is too large or cannot be stored")


def _reason(rejection: Rejection) -> Row:
    return {"reason": rejection.reason.value, "detail": rejection.detail}


def _is_settled(row: Row) -> bool:
    return row.get("reason") is None or Reason(row["reason"]).is_settled


def _claims(known: pa.Table) -> pa.Table:
    """The present files whose SOP instance another file claims, too: instance, row, path, pixels."""
    present = pc.and_(pc.is_null(known["reason"]), pc.invert(pc.or_(known["deleted"], known["is_zip"])))
    counts = known["sop_instance"].filter(present).value_counts()
    repeated = pc.struct_field(counts, "values").filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    at = pc.indices_nonzero(pc.and_(present, pc.is_in(known["sop_instance"], value_set=repeated)))
    return known.select(["sop_instance", "path", "pixels"]).take(at).append_column("row", at.cast(pa.int64()))


def _with_pixels(archive: str, known: pa.Table, log: Log) -> pa.Table:
    """`known` with pixel digests of all files that claim another file's instance."""
    claims = _claims(known)
    lacking = claims.filter(pc.is_null(claims["pixels"]))
    if not lacking.num_rows:
        return known
    paths = [os.fsdecode(path) for path in lacking["path"].to_pylist()]
    digests: list[str | None] = []
    faults = FaultWatch()
    with Progress("repeats", len(paths), "files", log) as progress:
        for result in each_in_worker(partial(digest_pixels, archive), paths, readable=[archive]):
            faults.note(result)
            digests.append(_digest(result))
            progress.advance()
    return _replaced(known, "pixels", lacking["row"], digests)


def _replaced(known: pa.Table, column: str, rows: pa.Array, values: list[str | None]) -> pa.Table:
    """`known` with `values` in a column of text, at the positions `rows`, ascending."""
    mask = pc.is_in(pa.array(range(known.num_rows)), value_set=rows)
    texts = pc.replace_with_mask(known[column].combine_chunks(), mask, pa.array(values, pa.string()))
    return known.set_column(known.schema.get_field_index(column), KNOWN.field(column), texts)


def _digest(result: str | UnreadableFile | Failed | None) -> str | None:
    """The digest to store: "" if the pixels do not decode, None if the next run has to try again."""
    if isinstance(result, str):
        return result
    if isinstance(result, UnreadableFile):
        return None
    return "" if result is None or result.rejection.reason.is_settled else None


def _repeats(known: pa.Table) -> dict[int, Rejection]:
    """Rejections of rows that claim another file's SOP instance.

    With equal pixels, the first file by path stays. With different pixels, or unreadable ones, all are rejected.
    """
    groups: dict[str, list[tuple[int, str | None]]] = defaultdict(list)
    claims = _claims(known)
    for instance, row, pixels in zip(*(claims[n].to_pylist() for n in ("sop_instance", "row", "pixels")), strict=True):
        groups[instance].append((row, pixels))
    rejections = {}
    for group in groups.values():
        digests = {pixels for _, pixels in group}
        same = len(digests) == 1 and not digests & {"", None}
        for row, _ in group[1:] if same else group:
            rejections[row] = _SAME if same else _NOT_COMPARED if None in digests else _OTHER
    return rejections


_NO_LOSS = [reason.value for reason in (Reason.NOT_ULTRASOUND, Reason.OTHER_MODALITY, Reason.FORGOTTEN)]
"""Reasons for which a former record may become a rejection without counting as lost."""
_UNOPENED = {
    LINK: Rejection(Reason.SYMBOLIC_LINK, "symbolic links within the archive are not followed"),
    SPECIAL: Rejection(Reason.SPECIAL_FILE, "not a regular file"),
}
_SAME = Rejection(Reason.DUPLICATE, "same SOP instance and same pixels as another file")
_OTHER = Rejection(Reason.CONFLICTING_DUPLICATE, "same SOP instance as another file, other pixels")
_NOT_COMPARED = Rejection(Reason.UNREADABLE, "same SOP instance as another file, and the pixels of one cannot be read")


def _split(known: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Records (file_id, RECORD_FIELDS, draw, number) and rejections of the present files."""
    present = select_rows(known, pc.invert(pc.or_(known["deleted"], known["is_zip"])))
    present = _rejected(present, _repeats(present))
    is_record = pc.is_null(present["reason"])
    names = ["file_id", *(field.name for field in RECORD_FIELDS), "draw", "number"]
    records = select_rows(present.select(names), is_record)
    return records, present.select(["file_id", "reason", "detail"]).filter(pc.invert(is_record))


def _described(records: pa.Table, keywords: Sequence[str]) -> pa.Table:
    """`records` with study_description and described_by: the first of `keywords` that each states, instead of all."""
    stated = records["descriptions"].combine_chunks()
    chosen = [_first(json.loads(text), keywords) for text in stated.dictionary.to_pylist()]
    for at, name in enumerate(("study_description", "described_by")):
        values = pa.array([pair[at] for pair in chosen], pa.string()).dictionary_encode()
        records = records.append_column(name, values.take(stated.indices))
    return records.drop_columns("descriptions")


def _first(stated: Mapping[str, str], keywords: Sequence[str]) -> tuple[str | None, str | None]:
    return next(((stated[keyword], keyword) for keyword in keywords if keyword in stated), (None, None))


def _record_table(columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """DICOM_INDEX of `columns` (with RECORD_FIELDS), which it empties, since memory would not hold both."""
    order = pc.sort_indices(columns["file_id"])
    for_labels = columns.pop("for_labels").take(order).combine_chunks()
    made = [
        _label_field(for_labels, field)
        if field in LABEL_FIELDS
        else columns.pop(field.name).take(order).cast(field.type).combine_chunks()
        for field in DICOM_INDEX.schema
    ]
    return pa.table(made, schema=DICOM_INDEX.schema)


def _label_field(for_labels: pa.DictionaryArray, field: pa.Field) -> pa.Array:
    """One column of LABEL_FIELDS, which each row has as JSON."""
    stated = [json.loads(text).get(field.name) for text in for_labels.dictionary.to_pylist()]
    return pa.array(stated, field.type).take(for_labels.indices)


def _sorted(rows: pa.Table, column: str) -> pa.Table:
    return rows.take(pc.sort_indices(rows[column])).combine_chunks()


def _rejected(rows: pa.Table, rejections: dict[int, Rejection]) -> pa.Table:
    """`rows` with the reason and detail of some of them."""
    if not rejections:
        return rows
    at, order = pa.array(sorted(rejections)), sorted(rejections)
    rows = _replaced(rows, "reason", at, [rejections[row].reason.value for row in order])
    return _replaced(rows, "detail", at, [rejections[row].detail for row in order])


def _nothing_found(archive: str, modalities: Collection[str], rejected: pa.Table) -> str:
    counts = Counter(rejected["reason"].to_pylist())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common(3)) or "all vanished"
    wanted = "ultrasound" if set(modalities) == {ULTRASOUND} else " or ".join(modalities)
    held = f"SONOTAG_ARCHIVE {without_credentials(archive)} holds {counts.total()} files"
    return f"{held} but no DICOM {wanted} image: {reasons}."


def _rejected_table(rows: pa.Table) -> pa.Table:
    rows = _sorted(rows, "file_id").rename_columns(["id", "reason", "detail"])
    rows = rows.append_column("level", pa.array(["file"] * rows.num_rows, pa.string()))
    return rows.select(REJECTED_FILES.schema.names).cast(REJECTED_FILES.schema)


def _deleted_table(rows: pa.Table) -> pa.Table:
    rows = rows.filter(pc.invert(rows["is_zip"]))
    return _sorted(rows.select(DELETED_FILES.schema.names), "file_id").cast(DELETED_FILES.schema)


def _write_patients(private: Path, records: pa.Table) -> None:
    """Write the patients of the index, with their draw for the split."""
    patients = records.group_by("patient").aggregate([("draw", "min"), ("number", "min")])
    columns = [patients[name] for name in ("patient", "draw_min", "number_min")]
    table = _sorted(pa.table(columns, names=_PATIENTS.names), "patient")
    write_table(private / "patients.parquet", table.cast(_PATIENTS))
