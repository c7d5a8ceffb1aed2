"""The private list of patients who were erased on request, and which files of the archive are theirs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dicom.rejections import Reason, Rejection
from pipeline.errors import DamagedError, UserError
from pipeline.files import read_json
from pipeline.mirrored import copy_of, read_mirrored, write_mirrored_json

FORGOTTEN = Rejection(Reason.FORGOTTEN, "its patient was forgotten on request")

_STUDIES = ("study", "series")
_LISTS = ("patients", "numbers", "studies")


class ErasureList:
    """Pseudonyms of erased patients, of their numbers and of their studies, made with the key of `key_check`.

    A file belongs to an erased patient if it names one. The list learns from files: it adds a study or series in which
    an erased patient occurs, and in such a study every patient with an erased number (PatientID without its issuer) or
    without a number. Each addition is written to the private folder at once.
    """

    def __init__(self, private: Path, key_check: str) -> None:
        """Read the list; raises `UserError` if it was written under another key, which matches no file now."""
        self._path, self._key = private / "forgotten.json", key_check
        kept: Mapping[str, Any] = read_mirrored(self._path, _read_list) or {"key": key_check}
        if kept["key"] != key_check:
            raise UserError(
                f"{self._path} names patients under another pseudonym key: go back to that key, or remove the file "
                f"and its copy {copy_of(self._path).name}, and forget them again."
            )
        self.patients, self.numbers, self.studies = (set(kept.get(name, ())) for name in _LISTS)
        if "numbers" not in kept:  # an early version kept patients alone; without an issuer, those are their numbers
            self.numbers |= self.patients

    def add(
        self,
        patients: Iterable[str | None] = (),
        numbers: Iterable[str | None] = (),
        studies: Iterable[str | None] = (),
    ) -> bool:
        """Add pseudonyms, without None, and return whether any was new."""
        before = self._size
        for kept, added in ((self.patients, patients), (self.numbers, numbers), (self.studies, studies)):
            kept.update(value for value in added if value is not None)
        if self._size == before:
            return False
        lists = {name: sorted(getattr(self, name)) for name in _LISTS}
        write_mirrored_json(self._path, {"key": self._key, **lists})
        return True

    @property
    def _size(self) -> int:
        return len(self.patients) + len(self.numbers) + len(self.studies)

    def covers(self, row: Mapping[str, Any]) -> bool:
        """Whether the file of `row` is an erased patient's; the list learns from it. Fields may be missing."""
        if not self.patients or row.get("patient") is None:
            return False
        in_study = any(row.get(name) in self.studies for name in _STUDIES)
        if in_study and (row.get("number") is None or row["number"] in self.numbers):
            self.add([row["patient"]])
        if row["patient"] in self.patients:
            self.add(studies=[row.get(name) for name in _STUDIES])
        return row["patient"] in self.patients

    def covered(self, rows: pa.Table) -> pa.ChunkedArray:
        """A flag per row (patient, number, study, series): whether its file is an erased patient's.

        The list learns from all rows together.
        """
        while True:
            of_patient = is_among(rows["patient"], self.patients)
            same = pc.or_(pc.is_null(rows["number"]), is_among(rows["number"], self.numbers))
            patients = rows["patient"].filter(pc.and_(self._in_studies(rows), same)).unique().to_pylist()
            studies = [value for name in _STUDIES for value in rows[name].filter(of_patient).unique().to_pylist()]
            if not self.add(patients=patients, studies=studies):
                return of_patient

    def other_patients_files(self, rows: pa.Table) -> list[str]:
        """Sorted ids of the present files among `rows` in an erased patient's study that name another one."""
        other = pc.and_(self._in_studies(rows), pc.invert(is_among(rows["patient"], self.patients)))
        found = rows["file_id"].filter(pc.and_(other, pc.invert(rows["deleted"])))
        return sorted(set(found.to_pylist()))

    def _in_studies(self, rows: pa.Table) -> pa.ChunkedArray:
        in_one = pc.or_(*(is_among(rows[name], self.studies) for name in _STUDIES))
        return pc.and_(in_one, pc.is_valid(rows["patient"]))


def _read_list(path: Path) -> dict[str, Any]:
    kept = read_json(path)
    if not isinstance(kept, dict) or not isinstance(kept.get("key"), str) or "patients" not in kept:
        raise DamagedError(path)
    if any(not isinstance(kept.get(name, []), list) for name in _LISTS):
        raise DamagedError(path)
    return kept


def is_among(column: pa.ChunkedArray, values: Iterable[str]) -> pa.ChunkedArray:
    """A flag per entry of a column of texts, plain or as a dictionary; null is not among `values`."""
    texts = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    return pc.is_in(texts, value_set=pa.array(sorted(values), pa.string()))
