"""Searches files for identifiers: the spellings to look for, and the files in which they occur."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.valuerep import PersonName

from pipeline.privacy.file_text import files_below, text_pieces
from pipeline.privacy.header_values import HeaderValues
from pipeline.privacy.pattern_matcher import Pattern, PatternMatcher, comparable

PATH: Final = "path"
"""Kind of a pattern that is a file's path in the archive, or a folder on it."""

SHORTEST: Final = 6
"""Characters; shorter values, such as a StudyID of 1, occur in harmless text by chance."""

_NAMED = {"PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames"}  # searched even if one plain word
_WORDS = re.compile(r"[^\W_]+")
_BETWEEN_NAMES = (" ", ", ", ",", "_", ".", "-", "^")

# Placeholders of identifiers that were removed or never entered, and words of every store: they identify no patient.
_PLACEHOLDER_WORDS = """
anonymous anonymized anonymised anonymize anonym unknown unnamed undefined removed withheld redacted deidentified de
identified no none null not info given specified applicable default demo test sample example phantom volunteer patient
name first last family firstname lastname surname id study series image images data file files dcm dicom dicomdir txt
readme index ultrasound radiology hospital clinic clinical university medical center centre department general research
abdomen thyroid kidney liver breast chest nodule drainage baseline training validation
pediatric paediatric neonatal vascular cardiac obstetric
admin administrator operator user service technician sonographer physician doctor
"""
_PLACEHOLDERS = frozenset(_PLACEHOLDER_WORDS.split())


@dataclass(frozen=True, order=True, slots=True)
class Finding:
    """An identifier in a file: its kind (a DICOM keyword, `path` …), never its value."""

    file: str
    kind: str


def find_identifiers(paths: Iterable[Path], excluded: Sequence[Path], matcher: PatternMatcher) -> list[Finding]:
    """Sorted findings in the files of `paths`, files or folders, except those below the folders `excluded`.

    A file that vanishes meanwhile is skipped. Raises `OSError` if a file cannot be read.
    """
    files = ((file, path.parent) for path in paths for file in files_below(path, excluded))
    return sorted({finding for file, parent in files for finding in _find_in_file(file, parent, matcher)})


def _find_in_file(file: Path, parent: Path, matcher: PatternMatcher) -> Iterator[Finding]:
    """Findings in `file` and in its name; one in the name keeps the whole name out of all of them."""
    relative = file.relative_to(parent).as_posix()
    in_name = matcher.kinds_in(relative, in_cells=False)
    printed = "a file whose own name holds one" if in_name else relative
    kinds = in_name.union(*(matcher.kinds_in(piece.text, piece.in_cells) for piece in text_pieces(file)))
    return (Finding(printed, kind) for kind in kinds)


def public_texts(files: Iterable[HeaderValues], rare: frozenset[str], chosen: Iterable[str]) -> str:
    """All texts that are published on purpose, one per line: settings, descriptions that are not `rare`, `chosen`."""
    hidden = {_folded(text) for text in rare}
    texts = {text for file in files for text in (*file.devices, *file.settings)}
    shared = {file.description for file in files if _folded(file.description) not in hidden}
    return "\n".join(sorted({_folded(text) for text in (*texts, *shared, *chosen)}))


def _folded(text: str) -> str:
    return " ".join(comparable(text).split())


def header_patterns(files: Iterable[HeaderValues]) -> Iterator[Pattern]:
    """The spellings of all identifying values, except those that are also published as the name of a device."""
    files = list(files)
    published = "\n".join(sorted({comparable(text) for file in files for text in file.devices}))
    for keyword, value in sorted({pair for file in files for pair in file.identifying}):
        yield from (pattern for pattern in _spellings(keyword, value) if pattern.text not in published)
    yield from _family_names(files, published)


def _spellings(keyword: str, value: str) -> Iterator[Pattern]:
    """How one value may be spelt in a copy of it."""
    if _is_placeholder(value):
        return
    if keyword == "PatientBirthDate":
        yield from _date(keyword, value)
        return
    for line in value.splitlines():
        text = comparable(line).strip(" ^=")
        if len(text) >= SHORTEST:
            bounded = _is_hexadecimal(text) or _is_plain_word(text)
            yield Pattern(text, keyword, bounded=bounded, only_cells=_only_in_cells(keyword, text))
    if "^" in value:
        yield from _full_names(keyword, value)


def _is_placeholder(value: str) -> bool:
    """Whether `value` consists of placeholders, or of one repeated character."""
    words = _words(value)
    return len(set("".join(words))) < 2 or all(word in _PLACEHOLDERS for word in words)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(comparable(text)))


def _date(keyword: str, value: str) -> Iterator[Pattern]:
    """A date as DICOM and as ISO 8601 write it."""
    if len(value) == 8 and value.isdigit():
        yield Pattern(value, keyword, bounded=True, only_cells=True)
        yield Pattern(f"{value[:4]}-{value[4:6]}-{value[6:]}", keyword, bounded=True, only_cells=True)


def _is_hexadecimal(text: str) -> bool:
    """Whether the text could be part of a pseudonym or of a number."""
    return not set(text) - set("0123456789abcdef.-_/ ")


def _only_in_cells(kind: str, text: str) -> bool:
    """Whether logs and databases hold such texts anyway: process numbers, and plain words such as `server`."""
    return kind not in _NAMED and _is_plain_word(text) if _has_letter(text) else _digits(text) < 8


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


def _is_plain_word(text: str) -> bool:
    """Whether the text may be a word of the language, or part of one."""
    return text.isalpha() and len(text) < 12


def _full_names(keyword: str, value: str) -> Iterator[Pattern]:
    """Family and given name in either order, as people and programs write them (PS3.5 section 6.2.1.1)."""
    for group in value.split("="):
        family, given, *_ = *(part.strip() for part in comparable(group).split("^")), ""
        if not family or not given or len(family + given) < SHORTEST + 1:
            continue
        for one, other in ((family, given), (given, family)):
            yield from (Pattern(one + between + other, keyword, bounded=True) for between in _BETWEEN_NAMES)


def _family_names(files: list[HeaderValues], published: str) -> Iterator[Pattern]:
    """Patients' family names as whole words, except words that describe other patients' studies."""
    words = {(word, name) for file in files for name in _patient_names(file) for word in _words(file.description)}
    for name in sorted({name for file in files for name in _patient_names(file)}):
        family = comparable(PersonName(name).family_name).strip()
        if "^" not in name or len(family) < SHORTEST or _is_placeholder(family) or family in published:
            continue
        if not any(word == family and other != name for word, other in words):
            yield Pattern(family, "PatientName", bounded=True, only_cells=True)


def _patient_names(file: HeaderValues) -> list[str]:
    return [value for keyword, value in file.identifying if keyword == "PatientName"]


def text_patterns(values: Iterable[str], kind: str, public: str) -> Iterator[Pattern]:
    """Free texts as they stand and with single spaces, as whole words; none that occurs in `public`."""
    for value in sorted(values):
        if _is_placeholder(value) or _folded(value) in public:
            continue
        for text in sorted({comparable(value).strip(), _folded(value)}):
            if len(text) >= SHORTEST:
                yield Pattern(text, kind, bounded=True, only_cells=_only_in_cells(kind, text))


def path_patterns(paths: Iterable[str], archive: str, public: str, separator: str) -> Iterator[Pattern]:
    """Whole paths, the folders on them, and the entries at the top of the folder `archive` or of a zip.

    `separator` stands between a zip's path and its member's. An entry at the top is searched behind the name of
    `archive`; alone only if it has a digit, since `train` identifies no patient. Neither does a name in `public`, such
    as that of a scanner.
    """
    names = {comparable(part.rstrip("/")) for path in paths for part in path.split(separator)}
    folders = {name[:end] for name in names for end, character in enumerate(name) if character == "/"}
    for name in sorted(names | folders):
        if "/" not in name and archive:
            yield Pattern(f"{comparable(archive)}/{name}", PATH, bounded=True)
        alone = "/" in name or any(character.isdigit() for character in name)
        if alone and len(name) >= SHORTEST and not _is_placeholder(name) and _folded(name) not in public:
            yield Pattern(name, PATH, bounded=True, only_cells=_digits(name) < 12 and not _has_letter(name))
