"""Forgetting a patient: out of the index, the labels, the caches and the pool, and never in again.

Belongs here: `python -m pipeline.archive forget`. Not here: the archive itself, which is read only; trained models,
which cannot be made to forget and are listed.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.examine import issued, key_check
from pipeline.archive.forgotten import remember_to_forget
from pipeline.archive.identity import pseudonym
from pipeline.archive.images import drop_from_caches
from pipeline.archive.listing import RECORD_FIELDS, known_files
from pipeline.archive.quarantine import Reason, Rejection, rejection_table
from pipeline.archive.trained_on import saw
from pipeline.files import read_table, write_table
from pipeline.store import Store
from pipeline.tables import QUARANTINE, REJECTED_FILES

_DETAIL = "its patient was forgotten on request"
_BY_PATIENT = ("patient", "other_patient")


@dataclass(frozen=True)
class Forgotten:
    """What was taken out, and what saw the patient: folders of encoders and models below the store."""

    files: int
    images: int
    saw: tuple[str, ...]


def forget(store: Store, key: bytes, patient_id: str, issuer: str | None) -> Forgotten:
    """Forget the patient with this PatientID (0010,0020), issued by `issuer` (0010,0021) where the files state one.

    First the patient is put on the private list of the forgotten, so that whatever happens to this process, no later
    run takes its files in. Raises `UserError` where the archive was never indexed, and where others were forgotten
    under another key.
    """
    patient = pseudonym(key, "patient", issued(patient_id, issuer))
    known = known_files(store.private)
    remember_to_forget(store.private, key_check(key), patient)
    theirs = pc.fill_null(pc.equal(known["patient"], patient), False)
    rows = known.filter(theirs)
    instances = sorted(set(rows["sop_instance"].drop_null().to_pylist()))
    present = rows.filter(pc.invert(rows["deleted"]))
    seen_by = tuple(saw(store, patient))
    images = drop_from_caches(store.images, store.private, instances)
    _forget_rows(store, patient, instances, present["file_id"].to_pylist())
    write_table(store.private / "scan.parquet", _without_fields(known, theirs))
    return Forgotten(present.num_rows, images, seen_by)


def _without_fields(known: pa.Table, theirs: pa.ChunkedArray) -> pa.Table:
    """`known` with nothing left of the files in question but that they are there, and why they are left out."""
    for name, value in (("reason", Reason.FORGOTTEN.value), ("detail", _DETAIL)):
        known = _replaced(known, name, pc.if_else(theirs, value, known[name]))
    for name in ("pixels", "draw", *(field.name for field in RECORD_FIELDS)):
        empty = pa.scalar(None, known.schema.field(name).type)
        known = _replaced(known, name, pc.if_else(theirs, empty, known[name]))
    return known


def _replaced(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), values)


def _forget_rows(store: Store, patient: str, instances: list[str], files: list[str]) -> None:
    """Take the patient's rows out of every table, and put its files into the quarantine, so that none is lost."""
    for path in [*sorted(store.tables.glob("*.parquet")), *sorted(store.private.glob("*.parquet"))]:
        if path.name == "scan.parquet":
            continue
        table = read_table(path)
        kept = table.filter(pc.invert(_theirs(table, patient, instances, files)))
        if path.stem in {QUARANTINE.name, REJECTED_FILES.name} and path.parent == store.tables:
            added = rejection_table("file", ((file, Rejection(Reason.FORGOTTEN, _DETAIL)) for file in files))
            kept = pa.concat_tables([kept, added.cast(kept.schema)])
            kept = kept.sort_by([("level", "ascending"), ("id", "ascending")])
        write_table(path, kept)


def _theirs(table: pa.Table, patient: str, instances: list[str], files: list[str]) -> pa.ChunkedArray:
    """Which rows of a table speak of the patient, of one of its instances or of one of its files."""
    found = pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])
    for name in table.column_names:
        if name in _BY_PATIENT:
            found = pc.or_(found, pc.equal(table[name], patient))
        elif name in {"sop_instance", "other_sop_instance"}:
            found = pc.or_(found, pc.is_in(table[name], value_set=pa.array(instances, pa.string())))
        elif name in {"id", "file_id"}:
            stems = pc.replace_substring_regex(table[name], ":.*", "")
            found = pc.or_(found, pc.is_in(stems, value_set=pa.array(files, pa.string())))
    return pc.fill_null(found, False)
