"""The search for what must not be there: raw identifiers of the archive's files in all that may be shared.

Belongs here: which elements identify somebody, reading them from a sample of files, which spellings are looked for.
Not here: making pseudonyms, finding many strings in much text (`needles`), getting text out of a file (`texts`).

It trusts nothing that the index says: the elements are read by pydicom itself, with a list of its own.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from pipeline.archive.listing import known_files
from pipeline.archive.source import SEPARATOR, is_remote, normalized, open_file
from pipeline.archive.workers import Failed, each_in_worker
from pipeline.dicom.reading import looks_like_dicom, quiet
from pipeline.privacy.needles import Needle, Needles, plain
from pipeline.privacy.other_identifiers import predicted_files, rare_descriptions
from pipeline.privacy.texts import files_below, texts
from pipeline.store import Store

IDENTIFYING: Final = (
    0x00100010,  # PatientName
    0x00100020,  # PatientID
    0x00100021,  # IssuerOfPatientID
    0x00100030,  # PatientBirthDate
    0x00101000,  # OtherPatientIDs
    0x00101001,  # OtherPatientNames
    0x00101002,  # OtherPatientIDsSequence
    0x00101005,  # PatientBirthName
    0x00101040,  # PatientAddress
    0x00101050,  # InsurancePlanIdentification
    0x00101060,  # PatientMotherBirthName
    0x00101090,  # MedicalRecordLocator
    0x00102154,  # PatientTelephoneNumbers
    0x00102297,  # ResponsiblePerson
    0x00080050,  # AccessionNumber
    0x00080080,  # InstitutionName
    0x00080081,  # InstitutionAddress
    0x00080090,  # ReferringPhysicianName
    0x00081010,  # StationName
    0x00081048,  # PhysiciansOfRecord
    0x00081050,  # PerformingPhysicianName
    0x00081060,  # NameOfPhysiciansReadingStudy
    0x00081070,  # OperatorsName
    0x00181000,  # DeviceSerialNumber
    0x00200010,  # StudyID
    0x00321032,  # RequestingPhysician
    0x00380010,  # AdmissionID
    0x00400275,  # RequestAttributesSequence
    0x00401001,  # RequestedProcedureID
    0x00402016,  # PlacerOrderNumberImagingServiceRequest
    0x00402017,  # FillerOrderNumberImagingServiceRequest
    0x00080018,  # SOPInstanceUID
    0x0020000D,  # StudyInstanceUID
    0x0020000E,  # SeriesInstanceUID
    0x00200052,  # FrameOfReferenceUID
)
"""What PS3.15 Table E.1-1 has removed or replaced, of the elements that name a person, a visit, a place or a file."""

PATH = "path"
"""Stands where a keyword would: the path of the file in the archive, or a folder on it."""

TASK_PATIENT: Final = "patient of a task"
"""Stands where a keyword would: a patient as a task's manifest names it."""

SAMPLE: Final = 500
"""Files whose identifiers are looked for, evenly spread over the archive."""

SHORTEST: Final = 6
"""Characters; a shorter value, such as a StudyID of 1, stands in harmless text by chance."""

_NAMED = {"PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames"}  # looked for even if one plain word
_PUBLISHED = (0x00080070, 0x00081090)  # Manufacturer, ManufacturerModelName: they leave the reader
_PUBLISHED_TOO = (
    0x00180015,  # BodyPartExamined
    0x00180020,  # ScanningSequence
    0x00181210,  # ConvolutionKernel
    0x00185010,  # TransducerData
    0x00185100,  # PatientPosition
    0x00185101,  # ViewPosition
    0x00186031,  # TransducerType
)  # they excuse a folder's name, never another element's value: people can write into them
_DESCRIPTION = 0x00081030
_WORDS = re.compile(r"[^\W_]+")
_BETWEEN_NAMES = (" ", ", ", ",", "_", ".", "-", "^")

# What stands where an identifier was taken out or never put in, and words of every store: they name nobody.
_STAND_IN_WORDS = """
anonymous anonymized anonymised anonymize anonym unknown unnamed undefined removed withheld redacted deidentified de
identified no none null not info given specified applicable default demo test sample example phantom volunteer patient
name first last family firstname lastname surname id study series image images data file files dcm dicom dicomdir txt
readme index ultrasound radiology hospital clinic clinical university medical center centre department general research
abdomen thyroid kidney liver breast chest nodule drainage baseline training validation
pediatric paediatric neonatal vascular cardiac obstetric
admin administrator operator user service technician sonographer physician doctor
"""
_STAND_INS = frozenset(_STAND_IN_WORDS.split())


@dataclass(frozen=True, order=True, slots=True)
class Exposure:
    """An identifier where it must not be: which kind (a DICOM keyword, or `path`), in which file; never the value."""

    file: str
    identifier: str


@dataclass(frozen=True, slots=True)
class Search:
    """A search's outcome: what was found, and for how much was looked.

    Of `files` sampled, `read` gave identifying values; `identifiers` spellings were looked for, of paths too.
    """

    exposures: tuple[Exposure, ...]
    files: int
    read: int
    identifiers: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the search is given beside the archive: `patients` of tasks, to look for; `public` texts name nobody."""

    patients: frozenset[str] = frozenset()
    public: frozenset[str] = frozenset()


_NOTHING = Known()


@dataclass(frozen=True, slots=True)
class _OfFile:
    """What a file holds: (keyword, value) of the identifying elements, and texts that are or may be published.

    `devices` are maker and model, `settings` the other published elements.
    """

    values: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    settings: tuple[str, ...]
    description: str


def shared_places(store: Store, others: Iterable[Path]) -> list[Path]:
    """What `exposed` is to search: all in the store but the private folder and the phantom, and what is in `others`.

    `others` are folders that belong to the store in meaning, such as DAGSTER_HOME; one inside the store counts once.
    """
    own = [path for path in sorted(store.root.iterdir()) if path not in {store.private, store.phantom}]
    root = store.root.resolve()
    return [*own, *(path for path in others if path.is_dir() and not path.resolve().is_relative_to(root))]


def exposed(archive: str, private: Path, places: Iterable[Path], known: Known = _NOTHING) -> Search:
    """Search the files of `places`, folders or files, for the identifiers of a sample of the archive's files.

    Descriptions too rare to be published, the patients of tasks and the files that models were applied to are looked
    for, too. A folder that is called as a published maker, model or description, or as a public text, names nobody.

    `archive` is a folder or URL as `pipeline.archive.source` takes it. Values of at least 6 characters are looked for
    anywhere, whatever the case and the escapes of JSON or a URL; numbers, plain words and full names only where no
    letter and no digit touches them. Short numbers, dates of birth, patients' family names alone, and plain words for
    anything but a patient are looked for in table cells alone: elsewhere they are process numbers, accounts and hosts.
    A file of `places` that vanishes meanwhile is passed over.
    Raises `UserError` where no scan has run yet, and `OSError` where a file of `places` cannot be read.
    """
    archive, paths = normalized(archive), _sampled_paths(private)
    found = _of_files(archive, paths)
    rare = rare_descriptions(private)
    public = _public(found, rare, known)
    needles = Needles(
        [
            *_needles_of_paths(paths, _last_part(archive), public),
            *_needles_of_values(found),
            *_needles_of_texts(rare, "StudyDescription", public),
            *_needles_of_texts(known.patients, TASK_PATIENT, public),
            *_needles_of_new_images(private, public),
        ]
    )
    elsewhere = (private,) if is_remote(archive) else (private, Path(archive))
    exposures = {
        exposure
        for place in places
        for file in files_below(place, elsewhere)
        for exposure in _in_file(file, place.parent, needles)
    }
    return Search(tuple(sorted(exposures)), len(paths), len(found), len(needles))


def _of_files(archive: str, paths: list[str]) -> list[_OfFile]:
    """What the files hold, but for those without identifying values and those that cannot be read."""
    read = each_in_worker(partial(_of_file, archive), paths, readable=[archive])
    return [one for one in read if not isinstance(one, Failed | None)]


def _last_part(archive: str) -> str:
    return archive.rstrip("/").rpartition("/")[2]


def _public(files: list[_OfFile], rare: frozenset[str], known: Known) -> str:
    """All texts that are published on purpose, a line each: settings, descriptions that many share, what is given."""
    hidden = {_folded(text) for text in rare}
    shared = {file.description for file in files if _folded(file.description) not in hidden}
    settings = {text for file in files for text in (*file.devices, *file.settings)}
    return "\n".join(sorted({_folded(text) for text in (*settings, *shared, *known.public)}))


def _folded(text: str) -> str:
    return " ".join(plain(text).split())


def _in_file(file: Path, above: Path, needles: Needles) -> Iterator[Exposure]:
    """What of `needles` stands in `file`, and in its name: then nothing of the name is repeated."""
    relative = file.relative_to(above).as_posix()
    in_name = needles.found_in(relative, in_cells=False)
    shown = "a file whose own name holds one" if in_name else relative
    kinds = in_name.union(*(needles.found_in(text.text, text.in_cells) for text in texts(file)))
    return (Exposure(shown, kind) for kind in kinds)


def _sampled_paths(private: Path) -> list[str]:
    known = known_files(private)
    paths = known["path"].filter(pc.invert(pc.or_(known["deleted"], known["is_zip"])))
    step = max(1, -(-len(paths) // SAMPLE))
    return [os.fsdecode(path) for path in paths.take(pa.array(range(0, len(paths), step))).to_pylist()]


def _of_file(archive: str, path: str) -> _OfFile | None:
    """The identifying values of one file; None where there are none to be read. Runs in a worker."""
    wanted = [*IDENTIFYING, *_PUBLISHED, *_PUBLISHED_TOO, _DESCRIPTION]
    try:
        with quiet(), open_file(archive, path) as file:
            if not looks_like_dicom(file.read(132)):
                return None
            file.seek(0)
            dataset = pydicom.dcmread(_Unnamed(file), stop_before_pixels=True, force=True, specific_tags=wanted)
            values = [pair for tag in IDENTIFYING for pair in _values(dataset, tag)]
            devices = [value for tag in _PUBLISHED for _, value in _values(dataset, tag)]
            settings = [value for tag in _PUBLISHED_TOO for _, value in _values(dataset, tag)]
            description = " ".join(value for _, value in _values(dataset, _DESCRIPTION))
    except Exception:
        return None  # broken off or hostile: `Search.read` says how many were read
    return _OfFile(tuple(values), tuple(devices), tuple(settings), description) if values else None


class _Unnamed:
    """A file without the attribute `name`, for which pydicom asks every buffered reader, also of a zip's member."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _values(dataset: Dataset, tag: int) -> list[tuple[str, str]]:
    """(keyword, value) for each value of an element, also in the items of a sequence; none where it is unreadable."""
    try:
        element = dataset.get(tag)
        if element is None or element.value is None:
            return []
        if element.VR == "SQ":
            return [pair for item in element.value for inner in IDENTIFYING for pair in _values(item, inner)]
        several = element.value if isinstance(element.value, MultiValue) else [element.value]
        return [(keyword_for_tag(tag), str(value)) for value in several]
    except Exception:
        return []  # one bad field loses that field


def _needles_of_values(files: list[_OfFile]) -> Iterator[Needle]:
    """The spellings of all values; what is also published as the name of a device identifies nobody."""
    published = "\n".join(sorted({plain(text) for file in files for text in file.devices}))
    for keyword, value in sorted({pair for file in files for pair in file.values}):
        spellings = [*_spellings(keyword, value)]
        yield from (needle for needle in spellings if needle.text not in published)
    yield from _family_names(files, published)


def _spellings(keyword: str, value: str) -> Iterator[Needle]:
    """How one value may be spelt where it has been copied."""
    if _is_stand_in(value):
        return
    if keyword == "PatientBirthDate":
        yield from _date(keyword, value)
        return
    for line in value.splitlines():
        text = plain(line).strip(" ^=")
        if len(text) >= SHORTEST:
            bounded = _by_chance(text) or _is_plain_word(text)
            yield Needle(text, keyword, bounded=bounded, only_cells=_only_in_cells(keyword, text))
    if "^" in value:
        yield from _full_names(keyword, value)


def _is_stand_in(value: str) -> bool:
    """Whether `value` is nothing but stand-ins, or one character again and again."""
    words = _words(value)
    return len(set("".join(words))) < 2 or all(word in _STAND_INS for word in words)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(plain(text)))


def _date(keyword: str, value: str) -> Iterator[Needle]:
    """A date as DICOM writes it and as ISO 8601 does."""
    if len(value) == 8 and value.isdigit():
        yield Needle(value, keyword, bounded=True, only_cells=True)
        yield Needle(f"{value[:4]}-{value[4:6]}-{value[6:]}", keyword, bounded=True, only_cells=True)


def _by_chance(text: str) -> bool:
    """Whether the text could be a part of a pseudonym or of a number, which are hexadecimal digits."""
    return not set(text) - set("0123456789abcdef.-_/ ")


def _only_in_cells(keyword: str, text: str) -> bool:
    """Whether logs and databases hold the like of it anyway: process numbers, and plain words such as `server`."""
    if not any(character.isalpha() for character in text):
        return sum(character.isdigit() for character in text) < 8
    return keyword not in _NAMED and _is_plain_word(text)


def _is_plain_word(text: str) -> bool:
    """Whether the text may be a word of the language, alone or as a part of another."""
    return text.isalpha() and len(text) < 12


def _full_names(keyword: str, value: str) -> Iterator[Needle]:
    """Family and given name in either order, as people and programs write them (PS3.5 section 6.2.1.1)."""
    for group in value.split("="):
        family, given, *_ = *(part.strip() for part in plain(group).split("^")), ""
        if not family or not given or len(family + given) < SHORTEST + 1:
            continue
        for one, other in ((family, given), (given, family)):
            yield from (Needle(one + between + other, keyword, bounded=True) for between in _BETWEEN_NAMES)


def _family_names(files: list[_OfFile], published: str) -> Iterator[Needle]:
    """Patients' family names as words of their own, but for words that describe the studies of others."""
    words_of = {(word, name) for file in files for name in _names(file) for word in _words(file.description)}
    for name in sorted({name for file in files for name in _names(file)}):
        family = plain(PersonName(name).family_name).strip()
        if "^" not in name or len(family) < SHORTEST or _is_stand_in(family) or family in published:
            continue
        if not any(word == family and other != name for word, other in words_of):
            yield Needle(family, "PatientName", bounded=True, only_cells=True)


def _names(file: _OfFile) -> list[str]:
    return [value for keyword, value in file.values if keyword == "PatientName"]


def _needles_of_texts(values: Iterable[str], kind: str, public: str) -> Iterator[Needle]:
    """Free texts as they stand and with single spaces, as words of their own; none that is public anyway."""
    for value in sorted(values):
        if _is_stand_in(value) or _folded(value) in public:
            continue
        for text in sorted({plain(value).strip(), _folded(value)}):
            number = not any(character.isalpha() for character in text)
            only_cells = _is_plain_word(text) or (number and sum(map(str.isdigit, text)) < 8)
            if len(text) >= SHORTEST:
                yield Needle(text, kind, bounded=True, only_cells=only_cells)


def _needles_of_new_images(private: Path, public: str) -> Iterator[Needle]:
    """What identifies the files that a model was applied to; the folder itself stands in the run's config."""
    for folder, paths in predicted_files(private):
        yield from _needles_of_paths(paths, _last_part(folder), public)
        yield from _needles_of_values(_of_files(folder, paths[:: max(1, -(-len(paths) // SAMPLE))]))


def _needles_of_paths(paths: Iterable[str], archive: str, public: str) -> Iterator[Needle]:
    """Whole paths, the folders on them, and what lies at the top, in a zip as in the archive itself.

    A name at the top is looked for behind the archive's own; alone only if it holds a digit: `train` names nobody. Nor
    does a name that is `public` anyway, such as that of a scanner by which an export is sorted.
    """
    names = {plain(part.rstrip("/")) for path in paths for part in path.split(SEPARATOR)}
    folders = {name[:end] for name in names for end, character in enumerate(name) if character == "/"}
    for name in sorted(names | folders):
        if "/" not in name and archive:
            yield Needle(f"{plain(archive)}/{name}", PATH, bounded=True)
        alone = "/" in name or any(character.isdigit() for character in name)
        if alone and len(name) >= SHORTEST and not _is_stand_in(name) and _folded(name) not in public:
            few = sum(character.isdigit() for character in name) < 12
            yield Needle(name, PATH, bounded=True, only_cells=few and not any(c.isalpha() for c in name))
