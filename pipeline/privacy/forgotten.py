"""Patients that were forgotten on request, and stay so.

Belongs here: the private list of them, which files are theirs, what is left of those files' rows. Not here: taking
them out of tables and caches (`forget`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.listing import KNOWN, RECORD_FIELDS
from pipeline.dicom.rejections import Reason, Rejection
from pipeline.errors import DamagedError, UserError
from pipeline.files import read_json
from pipeline.mirrored import copy_of, read_mirrored, write_mirrored_json

FORGOTTEN = Rejection(Reason.FORGOTTEN, "its patient was forgotten on request")

_STUDIES = ("study", "series")
_LISTS = ("patients", "numbers", "studies")


@dataclass(frozen=True)
class Traces:
    """Pseudonyms by which tables name the forgotten: patients, SOP instances, and ids of the files that are there."""

    patients: frozenset[str]
    instances: frozenset[str]
    files: frozenset[str]


class ForgottenList:
    """The forgotten, under the key that `key_check` stands for: pseudonyms of patients, their numbers, their studies.

    A file is theirs if it names one of the patients. The list grows with what files tell: a study (or series) in which
    a listed patient occurs, and in such a study an identity that has a listed number (PatientID without its issuer) or
    no number at all. Each growth is written to the private folder at once.
    """

    def __init__(self, private: Path, key_check: str) -> None:
        """Read the list; raises `UserError` if it was written under another key: nobody could be recognised by it."""
        self._path, self._key = private / "forgotten.json", key_check
        kept: Mapping[str, Any] = read_mirrored(self._path, _list_of) or {"key": key_check}
        if kept["key"] != key_check:
            raise UserError(
                f"{self._path} names patients under another pseudonym key: go back to that key, or remove the file "
                f"and its copy {copy_of(self._path).name}, and forget them again."
            )
        self.patients, self.numbers, self.studies = (set(kept.get(name, ())) for name in _LISTS)
        if "numbers" not in kept:  # of a version that kept patients alone: without an issuer, those are their numbers
            self.numbers |= self.patients

    def add(self, patients: Iterable[str] = (), numbers: Iterable[str] = (), studies: Iterable[str] = ()) -> bool:
        """Add pseudonyms, and return whether any was new; a study or series that is None is passed over."""
        before = self._size
        for kept, more in ((self.patients, patients), (self.numbers, numbers), (self.studies, studies)):
            kept.update(value for value in more if value is not None)
        if self._size == before:
            return False
        lists = {name: sorted(getattr(self, name)) for name in _LISTS}
        write_mirrored_json(self._path, {"key": self._key, **lists})
        return True

    @property
    def _size(self) -> int:
        return len(self.patients) + len(self.numbers) + len(self.studies)

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether the file of `row` (of KNOWN, which may lack fields) is theirs; the list learns from it."""
        if not self.patients or row.get("patient") is None:
            return False
        of_study = any(row.get(name) in self.studies for name in _STUDIES)
        if of_study and (row.get("number") is None or row["number"] in self.numbers):
            self.add([row["patient"]])
        if row["patient"] in self.patients:
            self.add(studies=[row.get(name) for name in _STUDIES])  # type: ignore[misc]
        return row["patient"] in self.patients

    def theirs(self, rows: pa.Table) -> pa.ChunkedArray:
        """Which of `rows` (KNOWN) are of files of theirs; the list learns from all rows together."""
        while True:
            of_patient = _among(rows["patient"], self.patients)
            same = pc.or_(pc.is_null(rows["number"]), _among(rows["number"], self.numbers))
            people = rows["patient"].filter(pc.and_(self._in_studies(rows), same)).unique().to_pylist()
            named = [
                value for name in _STUDIES for value in rows[name].filter(of_patient).unique().to_pylist()
            ]  # of a dictionary, too
            if not self.add(patients=people, studies=named):
                return of_patient

    def beside(self, rows: pa.Table) -> list[str]:
        """Sorted ids of the files among `rows` (KNOWN) that are there, in one of the studies, and name another."""
        others = pc.and_(self._in_studies(rows), pc.invert(_among(rows["patient"], self.patients)))
        found = rows["file_id"].filter(pc.and_(others, pc.invert(rows["deleted"])))
        return sorted(set(found.to_pylist()))

    def _in_studies(self, rows: pa.Table) -> pa.ChunkedArray:
        in_one = pc.or_(*(_among(rows[name], self.studies) for name in _STUDIES))
        return pc.and_(in_one, pc.is_valid(rows["patient"]))

    def scrubbed(self, rows: pa.Table) -> tuple[pa.Table, Traces]:
        """`rows` (KNOWN) with nothing left of their files but that they are there; and what was told there of them."""
        if not self.patients:
            return rows, Traces(frozenset(), frozenset(), frozenset())
        theirs = self.theirs(rows)
        found = rows.select(["sop_instance", "file_id", "deleted"]).filter(theirs)
        present = found["file_id"].filter(pc.invert(found["deleted"]))
        instances = frozenset(found["sop_instance"].drop_null().to_pylist())
        traces = Traces(frozenset(self.patients), instances, frozenset(present.to_pylist()))
        return _without_fields(rows, theirs) if found.num_rows else rows, traces


def _list_of(path: Path) -> dict[str, Any]:
    kept = read_json(path)
    if not isinstance(kept, dict) or not isinstance(kept.get("key"), str) or "patients" not in kept:
        raise DamagedError(path)
    if any(not isinstance(kept.get(name, []), list) for name in _LISTS):
        raise DamagedError(path)
    return kept


def _among(column: pa.ChunkedArray, values: Iterable[str]) -> pa.ChunkedArray:
    """Which entries of a column of texts, or of a dictionary of them, are among `values`; null is not."""
    texts = pa.array(sorted(values), pa.string())
    if not pa.types.is_dictionary(column.type):
        return pc.is_in(column, value_set=texts)
    return pc.is_in(column.cast(pa.string()), value_set=texts)


def _without_fields(rows: pa.Table, theirs: pa.ChunkedArray) -> pa.Table:
    for name, value in (("reason", FORGOTTEN.reason.value), ("detail", FORGOTTEN.detail)):
        rows = _replaced(rows, name, pc.if_else(theirs, value, rows[name]))
    for name in ("pixels", "draw", "number", *(field.name for field in RECORD_FIELDS)):
        rows = _replaced(rows, name, pc.if_else(theirs, pa.scalar(None, KNOWN.field(name).type), rows[name]))
    return rows


def _replaced(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), values)
