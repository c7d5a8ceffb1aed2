"""A search for what must not be there: raw identifiers of the archive's files in tables.

Belongs here: reading identifiers of a sample of files, and looking for them. Not here: making pseudonyms.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from pipeline.archive.listing import read_file_list
from pipeline.archive.quarantine import Rejected
from pipeline.archive.reading import quiet, read_elements

IDENTIFYING = (
    0x00100010,  # PatientName
    0x00100020,  # PatientID
    0x00101000,  # OtherPatientIDs
    0x00101040,  # PatientAddress
    0x00080050,  # AccessionNumber
    0x00080080,  # InstitutionName
    0x00080081,  # InstitutionAddress
    0x00080090,  # ReferringPhysicianName
    0x00081050,  # PerformingPhysicianName
    0x00081070,  # OperatorsName
    0x00200010,  # StudyID
    0x00080018,  # SOPInstanceUID
    0x0020000D,  # StudyInstanceUID
    0x0020000E,  # SeriesInstanceUID
)
SAMPLE = 500
"""Files whose identifiers are looked for, evenly spread over the archive."""

SHORTEST = 6
"""Characters; a shorter value, such as a StudyID of 1, stands in harmless text by chance."""


def exposed(archive: Path, private: Path, tables: Iterable[pa.Table]) -> int:
    """How many identifiers of a sample of the archive's files occur in a text cell of `tables`; 0 is right.

    Whole values are looked for, without regard to case, anywhere in a cell.
    """
    cells = "\n".join(sorted({cell for table in tables for cell in _texts(table)})).casefold()
    return sum(value in cells for value in _identifiers(archive, private))


def _texts(table: pa.Table) -> Iterable[str]:
    for column in table.columns:
        if pa.types.is_string(column.type):
            yield from (cell for cell in column.unique().to_pylist() if cell)


def _identifiers(archive: Path, private: Path) -> set[str]:
    files = list(read_file_list(private).values())
    step = max(1, len(files) // SAMPLE)
    found: set[str] = set()
    with quiet():
        for file in files[::step]:
            found |= _of_file(archive / file.path)
    return {value for value in found if len(value) >= SHORTEST}


def _of_file(path: Path) -> set[str]:
    """The identifying values of one file, in lower case; none where it is no DICOM file any more."""
    try:
        with open(path, "rb") as file:
            dataset = read_elements(file, IDENTIFYING, with_pixels=False).dataset
    except (OSError, Rejected):
        return set()
    values = set()
    for tag in IDENTIFYING:
        try:
            values.add(str(dataset[tag].value).strip().casefold() if tag in dataset else "")
        except Exception:
            continue  # a field that cannot be read cannot have been copied either
    return values
