"""The index: every file of the archive becomes a record or a rejection, and only what is new or changed is read.

Belongs here: reading what is new, repeats, the ledger of files. Not here: parsing (`header`), what is new (`listing`),
which texts are published (`descriptions`).
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.header_reader import HeaderReader, PixelDigester, Zip, row_of
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
    where,
    without_erased,
    write_known,
)
from pipeline.archive.missing_images import forget_confirmation, known_images, refuse_loss
from pipeline.archive.source import LINK, SEPARATOR, SPECIAL, Listed, is_remote, normalized, without_credentials
from pipeline.archive.workers import Failed, FaultWatch, after_tries, each_in_worker
from pipeline.dicom.header import ULTRASOUND, Header
from pipeline.dicom.rejections import Reason, Rejection, UnreadableFile
from pipeline.errors import UnreachableError, UserError
from pipeline.files import write_table
from pipeline.privacy.descriptions import publish_descriptions
from pipeline.privacy.erasure_list import FORGOTTEN, ErasureList
from pipeline.privacy.identity import file_id, key_check
from pipeline.privacy.phantom_marker import NO_PHANTOM, PHANTOM, has_marker, is_phantom
from pipeline.progress import Log, Progress, silent
from pipeline.recipe import Archive
from pipeline.tables import DELETED_FILES, DICOM_INDEX, LABEL_FIELDS, REJECTED_FILES

_PATIENTS = pa.schema(
    [
        pa.field("patient", pa.string(), nullable=False),
        pa.field("draw", pa.float64(), nullable=False),
        pa.field("number", pa.string()),
    ]
)
_JOURNAL_EVERY = 20_000  # files; what a killed run has read at most in vain
_LARGE_ZIP = 1000  # members; a smaller one is read within seconds


@dataclass(frozen=True)
class Index:
    """What the archive holds: `records` (DICOM_INDEX), `rejected` (REJECTED_FILES), `deleted` (DELETED_FILES).

    `files` were counted in the archive, members of zips among them, and folders that cannot be listed; `read` of them
    were new or changed, or could not be read by the run before.
    """

    records: pa.Table
    rejected: pa.Table
    deleted: pa.Table
    files: int
    read: int

    @property
    def unreadable(self) -> int:
        """How many of the rejected files could not be read now, and are to be read again by the next run."""
        return sum(not Reason(reason).is_settled for reason in self.rejected["reason"].to_pylist())


def index_archive(
    archive: str,
    private: Path,
    key: bytes,
    settings: Archive,
    log: Log = silent,
    erase: Callable[[Traces], object] = lambda _: None,
) -> Index:
    """Read the headers of what is new in `archive`, a folder or URL, and return the index of all of it.

    Writes what is known of each file to `private`: `scan.parquet`, `patients.parquet`, `descriptions.parquet`. Before
    that, `erase` gets the traces of forgotten patients that it still found there. Who calls it holds the store's
    archive lock. Raises
    `UserError` where the archive is missing, empty or without an image of the modalities in `settings`, where the
    private folder lies inside it, where half of the latest files cannot be read for what may pass, and where patients
    were forgotten under another key.
    """
    archive = normalized(archive)
    _apart(archive, private)
    phantom = is_phantom(archive)
    if phantom or has_marker(archive):
        log(PHANTOM if phantom else NO_PHANTOM)
    check = key_check(key)
    forgotten = ErasureList(private, check)
    known, read = _Scan(Origin(archive, check, settings.modalities), private, forgotten, erase).run(key, log)
    files = known.num_rows - pc.sum(pc.or_(known["deleted"], known["is_zip"]), min_count=0).as_py()
    records, rejected = _parted(known)
    _tell_of_links(rejected, log)
    deleted = _deleted_table(known.select([*DELETED_FILES.schema.names, "is_zip"]).filter(known["deleted"]))
    del known  # of a million files, its other columns are 150 MB
    if not records.num_rows:
        raise UserError(_nothing_found(archive, settings.modalities, rejected))
    _write_patients(private, records)
    if files != records.num_rows + rejected.num_rows:
        raise RuntimeError("The ledger of files does not balance.")
    records = publish_descriptions(private, records, 1 if phantom else settings.description_patients)
    columns = dict(zip(records.column_names, records.columns, strict=True))
    del records
    return Index(_record_table(columns), _rejected_table(rejected), deleted, files, read)


@dataclass(frozen=True)
class _Scan:
    """Brings the private list of files up to date."""

    origin: Origin
    private: Path
    forgotten: ErasureList
    erase: Callable[[Traces], object]

    def run(self, key: bytes, log: Log) -> tuple[pa.Table, int]:
        """What is known of every file now (KNOWN), written to the private folder, and how many files were read."""
        origin = self.origin
        compared = compare(list_files(origin.archive), read_known(self.private, origin))
        examiner = HeaderReader(origin.archive, origin.modalities)
        journal = Journal(self.private, origin)
        fresh = _Reader(examiner, key, journal, compared.tries, self.forgotten, log).read(compared.to_read)
        read, gone = fresh.num_rows, as_deleted(compared.gone)
        gone = gone.filter(pc.invert(pc.is_in(gone["path"], value_set=fresh["path"])))  # one that came back is not gone
        parts = [compared.unchanged, fresh, gone]
        nothing_new = not read and not gone.num_rows
        del compared, fresh, gone  # `parts` alone holds them, and gives them up
        known = self._without_forgotten(parts[0] if nothing_new else _together(parts))
        known = _with_pixels(origin.archive, known, log)
        self._refuse_loss(known)
        write_known(self.private, origin, known)
        forget_confirmation(self.private)
        return known, read

    def _refuse_loss(self, known: pa.Table) -> None:
        """Raise `UserError` if too much is gone, or cannot be read, of what the last scan found."""
        sound = pc.or_(pc.is_null(known["reason"]), pc.is_in(known["reason"], value_set=pa.array(_NO_LOSS)))
        there = known.filter(pc.and_(sound, pc.invert(known["deleted"])))
        instances = there["sop_instance"].filter(pc.is_null(there["reason"])).cast(pa.string())
        before = known_images(self.private, self.origin.archive)
        refuse_loss(self.private, self.origin.archive, before, there["path"], instances)

    def _without_forgotten(self, known: pa.Table) -> pa.Table:
        """`known` without what is told there of the forgotten: a file can tell late that a study is theirs."""
        known, traces = without_erased(known, self.forgotten)
        if traces.instances or traces.files:
            self.erase(traces)
        return known


def _tell_of_links(rejected: pa.Table, log: Log) -> None:
    """Warn of links, behind which a whole site may lie."""
    links = pc.sum(pc.equal(rejected["reason"], Reason.SYMBOLIC_LINK.value), min_count=0).as_py()
    if links:
        log(f"Not followed: {links} symbolic links in the archive. They are in `quarantine` as symbolic_link.")


def _apart(archive: str, private: Path) -> None:
    if not is_remote(archive) and private.resolve().is_relative_to(Path(archive).resolve()):
        raise UserError(f"SONOTAG_STORE lies inside SONOTAG_ARCHIVE {archive}: the archive is never written to.")


def _together(parts: list[pa.Table]) -> pa.Table:
    """All rows of `parts` (KNOWN) in the order of their paths; `parts` is emptied, since both would be too much."""
    rows = pa.concat_tables(parts)
    parts.clear()
    order = pc.sort_indices(rows["path"])
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    del rows
    return pa.table([columns.pop(name).take(order).combine_chunks() for name in KNOWN.names], schema=KNOWN)


class _Reader:
    """Reads files into rows of KNOWN, in workers, and keeps them in the journal on the way."""

    def __init__(
        self, examiner: HeaderReader, key: bytes, journal: Journal, tries: Tries, forgotten: ErasureList, log: Log
    ) -> None:
        self._examiner, self._journal, self._forgotten, self._log = examiner, journal, forgotten, log
        self._key, self._tries, self._faults = key, tries, FaultWatch()
        self._rows: list[dict[str, Any]] = []
        self._parts: list[pa.Table] = []
        self._zips: list[tuple[Listed, Zip]] = []

    def read(self, files: pa.Table) -> pa.Table:
        """Rows of `files` (LISTED) and of the members of zips among them.

        Raises `UnreachableError` where too many of them cannot be read; what was read until then is in the journal.
        """
        unopened = pc.is_in(files["version"], value_set=pa.array(list(_UNOPENED)))
        for listed in listed_rows(files.filter(unopened)):
            self._add(listed, _reason(_UNOPENED[listed.version]))
        files = files.filter(pc.invert(unopened))
        try:
            with Progress("headers", files.num_rows, "files", self._log) as progress:
                for listed, row in self._examined(listed_rows(files), progress):
                    self._add(listed, row)
            for zipped, container in self._zips:
                self._read_members(zipped, container)
        except UnreachableError:  # then it is the share's fault, and no file's, that reading was interrupted
            self._rows = [row for row in self._rows if row["settled"]]
            self._keep()
            raise
        self._keep()
        return pa.concat_tables([KNOWN.empty_table(), *self._parts])

    def _examined(self, files: Iterable[Listed], progress: Progress) -> Iterator[tuple[Listed, dict[str, Any]]]:
        """Each file with what its row holds; zips are put aside, and files that vanished passed over."""
        asked, sent = tee(files)  # few are under way at a time
        results = each_in_worker(self._examiner, sent)
        for listed, result in zip(asked, results, strict=True):
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

    def _row(self, header: Header) -> dict[str, Any]:
        try:
            return row_of(header, self._key)
        except Exception:  # what a worker sends that a hostile file has taken over need not be what it says
            return _reason(_NOT_STORED)

    def _failed(self, listed: Listed, rejection: Rejection) -> dict[str, Any]:
        if rejection.reason is not Reason.INTERRUPTED:
            return _reason(rejection)
        tries = 1 + self._tries.get((os.fsencode(listed.path), listed.size, listed.version), 0)
        return {"tries": tries} | _reason(after_tries(rejection, tries))

    def _read_members(self, zipped: Listed, container: Zip) -> None:
        """Rows of a zip's members, then its own: a killed run has a zip with all its members, or not at all."""
        within = {"container": os.fsencode(zipped.path)}
        sound: list[Listed] = []
        settled = True
        for member in container.members:
            listed = Listed(f"{zipped.path}{SEPARATOR}{member.name}", member.size, zipped.version)
            if member.problem:
                self._add(listed, within | _reason(member.problem))
            else:
                sound.append(listed)
        log = self._log if len(sound) >= _LARGE_ZIP else silent  # a line each for thousands of small ones tells nothing
        with Progress("members of a zip", len(sound), "files", log) as progress:
            for listed, row in self._examined(sound, progress):
                settled &= _is_settled(row)
                self._add(listed, within | row)
        self._add(zipped, {"is_zip": True, "settled": settled})

    def _id(self, listed: Listed) -> str:
        return file_id(self._key, listed.path)

    def _add(self, listed: Listed, row: dict[str, Any]) -> None:
        if self._forgotten.covers(row):
            row = {name: row[name] for name in ("container",) if name in row} | _reason(FORGOTTEN)
        self._rows.append(
            {
                "path": os.fsencode(listed.path),
                "size": listed.size,
                "version": listed.version,
                "file_id": self._id(listed),
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


def _known_table(rows: list[dict[str, Any]]) -> pa.Table:
    """`rows` as KNOWN; one whose values do not fit into it, as of a number of 20 digits, is a rejected file's."""
    try:
        return pa.Table.from_pylist(rows, schema=KNOWN)
    except Exception:  # Arrow's, OverflowError, UnicodeError, TypeError: whatever a value makes of it
        return pa.concat_tables([_known_row(row) for row in rows])


def _known_row(row: dict[str, Any]) -> pa.Table:
    try:
        return pa.Table.from_pylist([row], schema=KNOWN)
    except Exception:
        of_the_file = {name: row[name] for name in _OF_THE_FILE if name in row}
        return pa.Table.from_pylist([of_the_file | _reason(_NOT_STORED)], schema=KNOWN)


_OF_THE_FILE = ("path", "size", "version", "file_id", "container", "is_zip", "settled", "tries", "deleted")
_NOT_STORED = Rejection(Reason.UNREADABLE_HEADER, "a value in it is too large, or none that can be stored")


def _reason(rejection: Rejection) -> dict[str, Any]:
    return {"reason": rejection.reason.value, "detail": rejection.detail}


def _is_settled(row: dict[str, Any]) -> bool:
    return row.get("reason") is None or Reason(row["reason"]).is_settled


def _claims(known: pa.Table) -> pa.Table:
    """The present files that claim a SOP instance which another one claims too: instance, row, path, pixels."""
    present = pc.and_(pc.is_null(known["reason"]), pc.invert(pc.or_(known["deleted"], known["is_zip"])))
    counts = known["sop_instance"].filter(present).value_counts()
    repeated = pc.struct_field(counts, "values").filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    at = pc.indices_nonzero(pc.and_(present, pc.is_in(known["sop_instance"], value_set=repeated)))
    return (
        known.select(["sop_instance", "patient", "path", "pixels"]).take(at).append_column("row", at.cast(pa.int64()))
    )


def _with_pixels(archive: str, known: pa.Table, log: Log) -> pa.Table:
    """`known` with the digest of the pixels of every file that claims another file's instance."""
    claims = _claims(known)
    lacking = claims.filter(pc.is_null(claims["pixels"]))
    if not lacking.num_rows:
        return known
    paths = [os.fsdecode(path) for path in lacking["path"].to_pylist()]
    digests: list[str | None] = []
    faults = FaultWatch()
    with Progress("repeats", len(paths), "files", log) as progress:
        for result in each_in_worker(PixelDigester(archive), paths):
            faults.note(result)
            digests.append(_digest(result))
            progress.advance()
    mask = pc.is_in(pa.array(range(known.num_rows)), value_set=lacking["row"])
    column = pc.replace_with_mask(known["pixels"].combine_chunks(), mask, pa.array(digests, pa.string()))
    return known.set_column(known.schema.get_field_index("pixels"), KNOWN.field("pixels"), column)


def _digest(result: str | UnreadableFile | Failed | None) -> str | None:
    """What is kept of a file's pixels: "" where they do not decode, None where that is still to be found out."""
    if isinstance(result, str):
        return result
    if isinstance(result, UnreadableFile):
        return None
    return "" if result is None or result.rejection.reason.is_settled else None


def _repeats(known: pa.Table) -> dict[int, Rejection]:
    """The rows that claim another file's SOP instance, and why they are left out.

    With the same pixels the first by path stays; with other pixels none does, since none can be believed; and none
    until the pixels of all could be read.
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
"""Why an image that was a record may be none any more without being lost."""
_UNOPENED = {
    LINK: Rejection(Reason.SYMBOLIC_LINK, "symbolic links within the archive are not followed"),
    SPECIAL: Rejection(Reason.SPECIAL_FILE, "no regular file"),
}
_SAME = Rejection(Reason.DUPLICATE, "same SOP instance and same pixels as another file")
_OTHER = Rejection(Reason.CONFLICTING_DUPLICATE, "same SOP instance as another file, other pixels")
_NOT_COMPARED = Rejection(Reason.UNREADABLE, "same SOP instance as another file, and the pixels of one cannot be read")


def _parted(known: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The records (file_id, RECORD_FIELDS, draw and number) and the rejected files among the files that are there."""
    present = where(known, pc.invert(pc.or_(known["deleted"], known["is_zip"])))
    present = _rejected(present, _repeats(present))
    is_record = pc.is_null(present["reason"])
    records = where(present.select(["file_id", *(field.name for field in RECORD_FIELDS), "draw", "number"]), is_record)
    return records, present.select(["file_id", "reason", "detail"]).filter(pc.invert(is_record))


def _record_table(columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """DICOM_INDEX of `columns` (RECORD_FIELDS too), which is emptied: of a million records both would be too much."""
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
    """One column of LABEL_FIELDS out of those that each row states, as JSON."""
    stated = [json.loads(text).get(field.name) for text in for_labels.dictionary.to_pylist()]
    return pa.array(stated, field.type).take(for_labels.indices)


def _sorted(rows: pa.Table, column: str) -> pa.Table:
    return rows.take(pc.sort_indices(rows[column])).combine_chunks()


def _rejected(rows: pa.Table, rejections: dict[int, Rejection]) -> pa.Table:
    """`rows` with the reason and detail of some of them."""
    if not rejections:
        return rows
    order = sorted(rejections)
    mask = pc.is_in(pa.array(range(rows.num_rows)), value_set=pa.array(order))
    for name, values in (
        ("reason", [rejections[row].reason.value for row in order]),
        ("detail", [rejections[row].detail for row in order]),
    ):
        column = pc.replace_with_mask(rows[name].combine_chunks(), mask, pa.array(values, pa.string()))
        rows = rows.set_column(rows.schema.get_field_index(name), KNOWN.field(name), column)
    return rows


def _nothing_found(archive: str, modalities: Collection[str], rejected: pa.Table) -> str:
    counts = Counter(rejected["reason"].to_pylist())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common(3)) or "all vanished"
    wanted = "ultrasound" if set(modalities) == {ULTRASOUND} else " or ".join(modalities)
    held = f"SONOTAG_ARCHIVE {without_credentials(archive)} holds {counts.total()} files"
    return f"{held} but no DICOM {wanted} image: {reasons}."


def _rejected_table(rows: pa.Table) -> pa.Table:
    rows = _sorted(rows, "file_id")
    level = pa.array(["file"] * rows.num_rows, pa.string())
    return pa.table([level, rows["file_id"], rows["reason"], rows["detail"]], names=REJECTED_FILES.schema.names).cast(
        REJECTED_FILES.schema
    )


def _deleted_table(rows: pa.Table) -> pa.Table:
    rows = rows.filter(pc.invert(rows["is_zip"]))
    return _sorted(rows.select(DELETED_FILES.schema.names), "file_id").cast(DELETED_FILES.schema)


def _write_patients(private: Path, records: pa.Table) -> None:
    """The patients of the index with their place in the order in which splits are filled."""
    patients = records.group_by("patient").aggregate([("draw", "min"), ("number", "min")])
    columns = [patients[name] for name in ("patient", "draw_min", "number_min")]
    table = _sorted(pa.table(columns, names=_PATIENTS.names), "patient")
    write_table(private / "patients.parquet", table.cast(_PATIENTS))
