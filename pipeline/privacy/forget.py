"""Forgetting a patient: out of the index, the labels, the caches and the pool, and never in again.

Belongs here: `python -m pipeline.archive forget`. Not here: the archive itself, which is read only; trained models,
which cannot be made to forget and are listed; the list of the forgotten (`forgotten`).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.examine import NumberReader, issued, key_check
from pipeline.archive.images import drop_from_caches
from pipeline.archive.listing import known_parts, listed_rows
from pipeline.archive.workers import Failed, each_in_worker
from pipeline.dicom.rejections import rejection_table
from pipeline.errors import DamagedError, UserError
from pipeline.files import read_table, write_table
from pipeline.locks import archive_lock, block_training, tables_lock
from pipeline.mirrored import read_if_intact, read_mirrored
from pipeline.privacy.forgotten import FORGOTTEN, ForgottenList, Traces
from pipeline.privacy.identity import number_pseudonym, pseudonym
from pipeline.privacy.trained_on import saw
from pipeline.progress import Log, silent
from pipeline.store import Store
from pipeline.tables import PATIENT_SPLITS, QUARANTINE, REJECTED_FILES

_BY_PATIENT = ("patient", "other_patient")
_WORKLIST = "unmapped_descriptions.csv"  # it may hold a description that only this patient's files have


@dataclass(frozen=True)
class Forgotten:
    """What was taken out, and what saw the patient: folders of encoders and models below the store.

    `others` are ids of files that stay: they lie in a study of this patient, and name another number.
    """

    files: int
    images: int
    saw: tuple[str, ...]
    others: tuple[str, ...]


def forget(store: Store, key: bytes, patient_id: str, issuer: str | None, log: Log = silent) -> Forgotten:
    """Forget the patient with this PatientID (0010,0020), issued by `issuer` (0010,0021) if the files state one.

    Other names of the patient in its studies are forgotten too: see `ForgottenList`. First the patient is put on that
    list, so that whatever happens to this process, no later run takes the files in. Waits for a run that reads
    the archive, and says so. Raises `UserError` if nobody has that number, or nobody under that issuer, if a training
    is under way, if the archive was never indexed, and if others were forgotten under another key.
    """
    with (
        block_training(store.locks / "training.lock"),
        archive_lock(store, log),
        tables_lock(store, log),
    ):
        return _forget(store, key, patient_id, issuer)


def _forget(store: Store, key: bytes, patient_id: str, issuer: str | None) -> Forgotten:
    parts = known_parts(store.private)
    known = pa.concat_tables(parts.values())
    patient, number = pseudonym(key, "patient", issued(patient_id, issuer)), number_pseudonym(key, patient_id)
    forgotten = ForgottenList(store.private, key_check(key))
    if not (patient in forgotten.patients or _is_known(store, known, patient)):
        raise UserError(_no_such_patient(known, number, patient_id, issuer))
    forgotten.add([patient], [number])
    theirs = known["patient"].filter(forgotten.theirs(known)).unique().to_pylist()
    people, others = {patient, number, *theirs}, forgotten.beside(known)
    seen_by = sorted({folder for one in people for folder in saw(store, one)})
    _, traces = forgotten.scrubbed(known)
    images = take_out(store, traces)
    for path, part in reversed(parts.items()):  # the list of all files last: with it the work is done
        write_table(path, forgotten.scrubbed(part)[0])
    return Forgotten(len(traces.files), images, tuple(seen_by), tuple(others))


def _is_known(store: Store, known: pa.Table, patient: str) -> bool:
    """Whether a file names the patient, or one did that has left the archive: its side of the split is kept."""
    kept = read_mirrored(store.sides, partial(read_table, columns=["patient"]))
    split = kept is not None and patient in kept["patient"].to_pylist()
    return split or pc.index(known["patient"], patient).as_py() >= 0


def _no_such_patient(known: pa.Table, number: str, patient_id: str, issuer: str | None) -> str:
    """The sentence for a number that nobody has as it was given, without the number."""
    same = known.filter(pc.fill_null(pc.equal(known["number"], number), False))
    nobody = "No such patient: no file of the archive has this PatientID"
    if not same.num_rows:
        return f"{nobody} (leading zeros count)."
    spelled, issuers = _stated(same, patient_id)
    nobody += " under that issuer" if issuer else " without an issuer"
    if issuers:
        options = ", ".join(f"--issuer '{one}'" if one else "no --issuer" for one in sorted(issuers, key=str))
        return f"{nobody}; it occurs with: {options}."
    if spelled:
        return f"{nobody}; it occurs in another spelling (case or spaces): name it as the files do."
    return f"{nobody}; it occurs with another one, in files that cannot be read now."


def _stated(rows: pa.Table, patient_id: str) -> tuple[bool, set[str | None]]:
    """Whether the files of `rows` that are there state a number at all, and under which issuers they state this one.

    One file of each patient is read: issuers are not stored.
    """
    first = rows.filter(pc.invert(rows["deleted"])).group_by("patient", use_threads=False)
    listed = first.aggregate([(name, "first") for name in ("path", "size", "version")]).drop_columns(["patient"])
    listed = listed.rename_columns(["path", "size", "version"])
    metadata = rows.schema.metadata
    reader = NumberReader(os.fsdecode(metadata[b"archive"]), tuple(metadata[b"modalities"].decode().split()))
    read = [found for found in each_in_worker(reader, listed_rows(listed)) if not isinstance(found, Failed) and found]
    return bool(read), {issuer for stated, issuer in read if stated == patient_id}


def take_out(store: Store, traces: Traces) -> int:
    """Take the forgotten out of caches and tables, and return how many cached images there were."""
    read_mirrored(store.sides, read_table)  # restores what is damaged, or refuses: nothing else is lost below
    images = drop_from_caches(store.images, store.private, traces.instances)
    for path in [*sorted(store.tables.glob("*.parquet")), *sorted(store.private.glob("*.parquet"))]:
        if path.name != "scan.parquet":
            _take_out_of_table(store, path, traces)
    (store.private / _WORKLIST).unlink(missing_ok=True)
    return images


def _take_out_of_table(store: Store, path: Path, traces: Traces) -> None:
    """Take the patient's rows out of a table, and put its files into the quarantine, so that none is lost."""
    table = read_if_intact(path, read_table)
    is_ledger = path.stem in {QUARANTINE.name, REJECTED_FILES.name} and path.parent == store.tables
    if table is None or (is_ledger and table.column_names != QUARANTINE.schema.names):
        if path == PATIENT_SPLITS.path(store.tables) and not store.sides.is_file():
            raise DamagedError(path)
        path.unlink()  # what it held may be theirs; the next run makes it again
        return
    theirs = _theirs(table, traces)
    kept = table.filter(pc.invert(theirs))
    if is_ledger:
        added = rejection_table("file", ((file, FORGOTTEN) for file in traces.files))
        kept = pa.concat_tables([kept, added.cast(kept.schema)])
        kept = kept.sort_by([("level", "ascending"), ("id", "ascending")])
    elif kept.num_rows == table.num_rows:
        return
    write_table(path, kept)


def _theirs(table: pa.Table, traces: Traces) -> pa.ChunkedArray:
    """Which rows of a table speak of the patients, of one of their instances or of one of their files."""
    found = pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])
    for name in table.column_names:
        if name in _BY_PATIENT:
            found = pc.or_(found, _among(table[name], traces.patients))
        elif name in {"sop_instance", "other_sop_instance"}:
            found = pc.or_(found, _among(table[name], traces.instances))
        elif name in {"id", "file_id"}:
            stems = pc.replace_substring_regex(table[name], ":.*", "")
            found = pc.or_(found, _among(stems, traces.files))
    return found


def _among(column: pa.ChunkedArray, values: Iterable[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(sorted(values), pa.string()))
