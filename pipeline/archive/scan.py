"""The index: every file of the archive becomes a record or a rejection.

Belongs here: headers to rows under pseudonyms, repeats, the ledger of files. Not here: parsing, decoding.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.archive.header import Header, examine
from pipeline.archive.identity import patient_draw, pseudonym
from pipeline.archive.listing import ArchiveFile, cannot_be_read, list_files, write_file_list
from pipeline.archive.pixels import pixel_identity
from pipeline.archive.quarantine import Reason, Rejection, rejection_table
from pipeline.archive.reading import Unopened
from pipeline.archive.workers import Crashed, each_in_worker
from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.progress import Progress, Say, silent
from pipeline.tables import DICOM_INDEX

_PATIENTS = pa.schema(
    [pa.field("patient", pa.string(), nullable=False), pa.field("draw", pa.float64(), nullable=False)]
)

Records = dict[ArchiveFile, Header]
Rejections = dict[ArchiveFile, Rejection]


@dataclass(frozen=True)
class Index:
    """What the archive holds: `records` (schema DICOM_INDEX), `rejected` (REJECTED_FILES), and the files counted."""

    records: pa.Table
    rejected: pa.Table
    files: int


def index_archive(archive: Path, private: Path, key: bytes, say: Say = silent) -> Index:
    """Read every header of `archive` and return the index; write `files.parquet` and `patients.parquet` to `private`.

    Raises `UserError` where the archive is missing, empty or without an ultrasound image, where the private folder
    lies inside it, and where a file cannot be opened; then no table of patients is written.
    """
    _apart(archive, private)
    files = list_files(archive, key)
    write_file_list(private, archive, files)
    records, rejections = _read_headers(archive, files, say)
    _reject_repeats(archive, records, rejections)
    present = [file for file in files if file in records or file in rejections]
    if not records:
        raise UserError(_nothing_found(archive, rejections))
    if len(present) < len(files):
        write_file_list(private, archive, present)
    index = Index(_record_table(records, key), _rejected_table(rejections), len(present))
    if index.files != index.records.num_rows + index.rejected.num_rows:
        raise RuntimeError("The ledger of files does not balance.")
    _write_patients(private, records.values(), key)
    return index


def _apart(archive: Path, private: Path) -> None:
    if private.resolve().is_relative_to(archive.resolve()):
        raise UserError(f"SONOTAG_STORE lies inside SONOTAG_ARCHIVE {archive}: the archive is never written to.")


def _read_headers(archive: Path, files: list[ArchiveFile], say: Say) -> tuple[Records, Rejections]:
    records: Records = {}
    rejections: Rejections = {}
    paths = (str(archive / file.path) for file in files)
    with Progress("headers", len(files), "files", say) as progress:
        for file, result in zip(files, each_in_worker(examine, paths), strict=True):
            match result:
                case Header():
                    records[file] = result
                case Rejection():
                    rejections[file] = result
                case Crashed():
                    rejections[file] = Rejection(Reason.UNREADABLE_HEADER, "the reader died")
                case Unopened(vanished=False):
                    raise cannot_be_read(file.file_id, result.why)
            progress.advance()
    return records, rejections


def _reject_repeats(archive: Path, records: Records, rejections: Rejections) -> None:
    """Move files that claim another file's SOP instance from `records` to `rejections`.

    With the same pixels the first by path stays; with other pixels none does, since none can be believed.
    """
    repeats = list(_repeats(records))
    paths = [str(archive / file.path) for group in repeats for file in group]
    identities = iter(list(each_in_worker(pixel_identity, paths)) if paths else [])
    for group in repeats:
        pixels = {
            identity if isinstance(identity, str) else None for _, identity in zip(group, identities, strict=False)
        }
        same = len(pixels) == 1 and None not in pixels
        for file in group[1:] if same else group:
            del records[file]
            rejections[file] = (
                Rejection(Reason.DUPLICATE, "same SOP instance and same pixels as another file")
                if same
                else Rejection(Reason.CONFLICTING_DUPLICATE, "same SOP instance as another file, other pixels")
            )


def _repeats(records: Records) -> Iterator[list[ArchiveFile]]:
    groups: dict[str, list[ArchiveFile]] = defaultdict(list)
    for file, header in records.items():
        groups[header.sop_instance].append(file)
    return (group for group in groups.values() if len(group) > 1)


def _nothing_found(archive: Path, rejections: Rejections) -> str:
    counts = Counter(rejection.reason for rejection in rejections.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common(3)) or "all vanished"
    return f"SONOTAG_ARCHIVE {archive} holds {counts.total()} files but no DICOM ultrasound image: {reasons}."


def _record_table(records: Records, key: bytes) -> pa.Table:
    rows = [_row(file, header, key) for file, header in records.items()]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["file_id"])), schema=DICOM_INDEX.schema)


def _row(file: ArchiveFile, header: Header, key: bytes) -> dict[str, str | int | None]:
    patient_from, patient = patient_identity(header)
    return {
        "file_id": file.file_id,
        "sop_instance": pseudonym(key, "sop_instance", header.sop_instance),
        "series": pseudonym(key, "series", header.series) if header.series else None,
        "study": pseudonym(key, "study", header.study) if header.study else None,
        "patient": pseudonym(key, "patient", patient),
        "patient_from": patient_from,
        **{
            name: getattr(header, name)
            for name in DICOM_INDEX.schema.names
            if name not in {"file_id", "sop_instance", "series", "study", "patient", "patient_from"}
        },
    }


def patient_identity(header: Header) -> tuple[str, str]:
    """What tells the patient apart, and the raw identity that becomes a pseudonym.

    PatientID (0010,0020), with its issuer (0010,0021) where one is stated; without it the study, then the series,
    then nothing at all: images that cannot be told apart are one patient, so that no split can tear them apart.
    """
    if header.patient_id:
        return "patient_id", f"{header.issuer}\\{header.patient_id}" if header.issuer else header.patient_id
    if header.study:
        return "study", f"study\\{header.study}"
    if header.series:
        return "series", f"series\\{header.series}"
    return "nothing", "nothing\\"


def _rejected_table(rejections: Rejections) -> pa.Table:
    return rejection_table("file", ((file.file_id, rejection) for file, rejection in rejections.items()))


def _write_patients(private: Path, headers: Iterable[Header], key: bytes) -> None:
    identities = {patient_identity(header)[1] for header in headers}
    draws = sorted((pseudonym(key, "patient", identity), patient_draw(identity)) for identity in identities)
    table = pa.table({"patient": [p for p, _ in draws], "draw": [d for _, d in draws]}, schema=_PATIENTS)
    write_table(private / "patients.parquet", table)
