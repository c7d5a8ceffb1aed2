"""Erases a patient: from the index, labels, caches and pool, and from every later run (the command `forget`)."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.cache_builder import drop_from_caches
from pipeline.archive.header_reader import read_patient_id
from pipeline.archive.listing import Traces, known_parts, listed_rows, without_erased
from pipeline.archive.workers import Failed, each_in_worker
from pipeline.dicom.rejections import rejection_table
from pipeline.errors import DamagedError, UserError
from pipeline.files import read_table, write_table
from pipeline.locks import archive_lock, block_training, tables_lock
from pipeline.mirrored import read_if_intact, read_mirrored
from pipeline.privacy.erasure_list import FORGOTTEN, ErasureList, is_among
from pipeline.privacy.identity import key_check, number_pseudonym, pseudonym, with_issuer
from pipeline.privacy.training_exposure import models_exposed_to
from pipeline.progress import Log, silent
from pipeline.store import Store
from pipeline.tables import PATIENT_SPLITS, QUARANTINE, REJECTED_FILES

_DERIVED = (
    "private/experiments/*/unmapped_descriptions.csv",
    "private/experiments/*/unmapped_probes.csv",
    "private/experiments/*/doubtful_labels.csv",
    "private/experiments/*/*.html",
    "private/experiments/*/near_duplicates/*.png",
    "experiments/*/tables/contact_sheet.png",
)
"""Files that may contain a description that only this patient's files have, or show one of its images."""
_BY_PATIENT = ("patient", "other_patient")
_BY_INSTANCE = ("sop_instance", "other_sop_instance")
_BY_FILE = ("id", "file_id")


@dataclass(frozen=True)
class Erasure:
    """How many `files` and cached `images` were erased, and which networks (folders) the patient was exposed to.

    `other_patients_files` are ids of files that stay: they belong to a study of this patient but name another number.
    """

    files: int
    images: int
    exposed_models: tuple[str, ...]
    other_patients_files: tuple[str, ...]


def erase_patient(store: Store, key: bytes, patient_id: str, issuer: str | None, log: Log = silent) -> Erasure:
    """Erase the patient with this PatientID (0010,0020), with the issuer (0010,0021) that the files state, if any.

    Also erases the patient's other pseudonyms, see `ErasureList`. Adds the patient to that list first, so that no later
    run reads the files, even if this process is killed. Waits for a run that reads the archive, and logs a line. Raises
    `UserError` if no file has that number with that issuer, during a training, if the archive was never indexed, and if
    other patients were erased under another key.
    """
    with (
        block_training(store.locks / "training.lock"),
        archive_lock(store, log),
        tables_lock(store, log),
    ):
        return _erase(store, key, patient_id, issuer)


def _erase(store: Store, key: bytes, patient_id: str, issuer: str | None) -> Erasure:
    parts = known_parts(store.private)
    known = pa.concat_tables(parts.values())
    patient, number = pseudonym(key, "patient", with_issuer(patient_id, issuer)), number_pseudonym(key, patient_id)
    erased = ErasureList(store.private, key_check(key))
    if not (patient in erased.patients or _is_known(store, known, patient)):
        raise UserError(_no_such_patient(known, number, patient_id, issuer))
    erased.add([patient], [number])
    pseudonyms = {patient, number, *known["patient"].filter(erased.covered(known)).unique().to_pylist()}
    remaining = erased.other_patients_files(known)
    exposed = sorted({folder for one in pseudonyms for folder in models_exposed_to(store, one)})
    _, traces = without_erased(known, erased)
    images = erase_traces(store, traces)
    for path, part in reversed(parts.items()):  # scan.parquet last: it completes the erasure
        write_table(path, without_erased(part, erased)[0])
    return Erasure(len(traces.files), images, tuple(exposed), tuple(remaining))


def _is_known(store: Store, known: pa.Table, patient: str) -> bool:
    """Whether a file names the patient, or the split has a side for it, as for one who has left the archive."""
    kept = read_mirrored(store.sides, partial(read_table, columns=["patient"]))
    split = kept is not None and patient in kept["patient"].to_pylist()
    return split or pc.index(known["patient"], patient).as_py() >= 0


def _no_such_patient(known: pa.Table, number: str, patient_id: str, issuer: str | None) -> str:
    """The message for an unknown patient, without the number."""
    same = known.filter(pc.fill_null(pc.equal(known["number"], number), False))
    message = "No such patient: no file of the archive has this PatientID"
    if not same.num_rows:
        return f"{message} (leading zeros count)."
    is_stated, issuers = _stated_issuers(same, patient_id)
    message += " under that issuer" if issuer else " without an issuer"
    if issuers:
        options = ", ".join(f"--issuer '{one}'" if one else "no --issuer" for one in sorted(issuers, key=str))
        return f"{message}; it occurs with: {options}."
    if is_stated:
        return f"{message}; it occurs in another spelling (case or spaces): name it as the files do."
    return f"{message}; it occurs with another one, in files that cannot be read now."


def _stated_issuers(rows: pa.Table, patient_id: str) -> tuple[bool, set[str | None]]:
    """Whether the present files of `rows` state any number, and the issuers with which they state this one.

    Reads one file of each patient, since issuers are not stored.
    """
    first = rows.filter(pc.invert(rows["deleted"])).group_by("patient", use_threads=False)
    listed = first.aggregate([(name, "first") for name in ("path", "size", "version")]).drop_columns(["patient"])
    listed = listed.rename_columns(["path", "size", "version"])
    metadata = rows.schema.metadata
    archive, modalities = os.fsdecode(metadata[b"archive"]), tuple(metadata[b"modalities"].decode().split())
    reader = partial(read_patient_id, archive, modalities)
    found = each_in_worker(reader, listed_rows(listed), readable=[archive])
    read = [one for one in found if not isinstance(one, Failed | None)]
    return bool(read), {issuer for stated, issuer in read if stated == patient_id}


def erase_traces(store: Store, traces: Traces) -> int:
    """Erase `traces` from caches and tables; returns how many images were cached."""
    read_mirrored(store.sides, read_table)  # restores a damaged file or raises, before anything is removed
    images = drop_from_caches(store.images, store.private, traces.instances)
    tables = ("tables/*.parquet", "experiments/*/tables/*.parquet", "private/*.parquet")
    for path in (path for pattern in tables for path in sorted(store.root.glob(pattern))):
        if path.name != "scan.parquet":
            _erase_from_table(store, path, traces)
    for path in (path for pattern in _DERIVED for path in store.root.glob(pattern)):
        path.unlink()
    return images


def _erase_from_table(store: Store, path: Path, traces: Traces) -> None:
    """Remove the patients' rows from a table; a table of rejections gets a row for each of their files."""
    table = read_if_intact(path, read_table)
    is_ledger = path.stem in {QUARANTINE.name, REJECTED_FILES.name} and path.parent.name == "tables"
    if table is None or (is_ledger and table.column_names != QUARANTINE.schema.names):
        if path == PATIENT_SPLITS.path(store.tables) and not store.sides.is_file():
            raise DamagedError(path)
        path.unlink()  # it may hold the patients' rows; the next run writes it again
        return
    kept = table.filter(pc.invert(_has_trace(table, traces)))
    if is_ledger:
        added = rejection_table("file", ((file, FORGOTTEN) for file in traces.files))
        kept = pa.concat_tables([kept, added.cast(kept.schema)])
        kept = kept.sort_by([("level", "ascending"), ("id", "ascending")])
    elif kept.num_rows == table.num_rows:
        return
    write_table(path, kept)


def _has_trace(table: pa.Table, traces: Traces) -> pa.ChunkedArray:
    """A flag per row of a table: whether it names a patient, an instance or a file of `traces`."""
    found = pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])
    for name in table.column_names:
        if name in _BY_PATIENT:
            found = pc.or_(found, is_among(table[name], traces.patients))
        elif name in _BY_INSTANCE:
            found = pc.or_(found, is_among(table[name], traces.instances))
        elif name in _BY_FILE:
            stems = pc.replace_substring_regex(table[name], ":.*", "")
            found = pc.or_(found, is_among(stems, traces.files))
    return found
