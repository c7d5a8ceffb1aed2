"""Searches everything in a store that may be shared for identifiers of the archive's files."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.listing import known_files
from pipeline.archive.location import is_remote, normalized
from pipeline.archive.source import open_file
from pipeline.archive.workers import Failed, each_in_worker
from pipeline.archive.zips import SEPARATOR
from pipeline.errors import DamagedError
from pipeline.files import read_table
from pipeline.privacy.descriptions import rare_descriptions
from pipeline.privacy.header_values import HeaderValues, read_header_values
from pipeline.privacy.identifier_search import (
    Finding,
    find_identifiers,
    header_patterns,
    path_patterns,
    public_texts,
    text_patterns,
)
from pipeline.privacy.pattern_matcher import Pattern, PatternMatcher
from pipeline.recipe.archive import STUDY_DESCRIPTION
from pipeline.store import Store

TASK_PATIENT: Final = "patient of a task"
"""Kind of a finding that is a patient as a task's manifest names it."""

SAMPLE: Final = 500
"""Files whose identifiers are searched, evenly spread over the archive."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The findings; of `files` sampled, `read` had identifying values; `patterns` spellings were searched."""

    findings: tuple[Finding, ...]
    files: int
    read: int
    patterns: int


@dataclass(frozen=True, slots=True)
class RecipeTexts:
    """Texts that a recipe names: `patients` of its tasks, which are searched, and `public` ones, which are not.

    `descriptions` are the fields from which it takes study descriptions.
    """

    patients: frozenset[str] = frozenset()
    public: frozenset[str] = frozenset()
    descriptions: tuple[str, ...] = STUDY_DESCRIPTION


_NONE = RecipeTexts()


def shareable_paths(store: Store, folders: Iterable[Path]) -> list[Path]:
    """All of the store except its private folder and the phantom, and those of `folders` that are outside of it."""
    own = [path for path in sorted(store.root.iterdir()) if path not in {store.private, store.phantom}]
    root = store.root.resolve()
    return [*own, *(path for path in folders if path.is_dir() and not path.resolve().is_relative_to(root))]


def scan_for_identifiers(archive: str, private: Path, paths: Iterable[Path], recipe: RecipeTexts = _NONE) -> ScanResult:
    """Search the files of `paths`, files or folders, for identifiers of a sample of the files of `archive`.

    Also searches for descriptions too rare to be published, the recipe's patients, and files given to `predict`. Values
    of at least 6 characters match anywhere, regardless of case and of the escapes of JSON or a URL; numbers, plain
    words and full names only if no letter and no digit touches them. Short numbers, dates of birth, patients' family
    names alone, and plain words for anything but a patient match in cells of tables only: elsewhere they are process
    numbers, accounts and hosts. Raises `UserError` if no scan has run yet, and `OSError` if a file of `paths` cannot be
    read.
    """
    archive, sample = normalized(archive), _sampled_paths(private)
    headers = _header_values(archive, sample, recipe.descriptions)
    rare = rare_descriptions(private)
    public = public_texts(headers, frozenset(rare), recipe.public)
    matcher = PatternMatcher(
        [
            *path_patterns(sample, _last_part(archive), public, SEPARATOR),
            *header_patterns(headers),
            *(pattern for text, keyword in rare.items() for pattern in text_patterns([text], keyword, public)),
            *text_patterns(recipe.patients, TASK_PATIENT, public),
            *_patterns_of_predicted_files(private, public, recipe.descriptions),
        ]
    )
    excluded = (private,) if is_remote(archive) else (private, Path(archive))
    findings = find_identifiers(paths, excluded, matcher)
    return ScanResult(tuple(findings), len(sample), len(headers), len(matcher))


def _sampled_paths(private: Path) -> list[str]:
    known = known_files(private)
    paths = known["path"].filter(pc.invert(pc.or_(known["deleted"], known["is_zip"])))
    sample = paths.take(pa.array(range(0, len(paths), _step(len(paths)))))
    return [os.fsdecode(path) for path in sample.to_pylist()]


def _step(files: int) -> int:
    return max(1, -(-files // SAMPLE))


def _header_values(archive: str, paths: list[str], descriptions: tuple[str, ...]) -> list[HeaderValues]:
    """The values of the files that can be read and have some."""
    read = each_in_worker(partial(_read_one, archive, descriptions), paths, readable=[archive])
    return [one for one in read if not isinstance(one, Failed | None)]


def _read_one(archive: str, descriptions: tuple[str, ...], path: str) -> HeaderValues | None:
    """Runs in a worker."""
    try:
        with open_file(archive, path) as file:
            return read_header_values(file, descriptions)
    except Exception:
        return None  # `ScanResult.read` states how many were read


def _last_part(archive: str) -> str:
    return archive.rstrip("/").rpartition("/")[2]


def _patterns_of_predicted_files(private: Path, public: str, descriptions: tuple[str, ...]) -> Iterator[Pattern]:
    """Identifiers of files given to `predict`; their folder itself stands in the run's config, on purpose."""
    for table in sorted((private / "predictions").rglob("predictions.parquet")):
        files = sorted(_column(table, "file"))
        if files:
            folder = os.path.commonpath([str(Path(file).parent) for file in files])
            paths = [os.path.relpath(file, folder) for file in files]
            yield from path_patterns(paths, _last_part(folder), public, SEPARATOR)
            yield from header_patterns(_header_values(folder, paths[:: _step(len(paths))], descriptions))


def _column(table: Path, column: str) -> set[str]:
    """The values in a column; none if the table is damaged."""
    try:
        return set(read_table(table, [column])[column].drop_null().to_pylist())
    except (OSError, DamagedError):
        return set()
