"""How often suggested groups of study descriptions are right: Table A1, and descriptions of other hospitals."""

import csv
from collections.abc import Collection, Iterator
from pathlib import Path

from benchmarks.measure import Figure
from pipeline.labels.study_groups import StudyGroups, normalized, read_study_groups, shipped_study_groups
from pipeline.labels.study_terms import Vocabulary, shipped_terms, shipped_vocabulary
from pipeline.labels.suggestions import Suggester
from pipeline.recipe.labels import Labels

Rows = list[tuple[str, frozenset[str] | None]]
"""Descriptions with the groups that a radiologist would accept; None if the description does not say what they are."""

GROUPS = Labels().groups


def figures(shared: Path) -> list[Figure]:
    """The figures of Table A1, and of `real_tags/descriptions.csv` in the folder `shared` if that is there."""
    found = list(_of_table_a1())
    path = shared / "real_tags" / "descriptions.csv"
    if path.is_file():
        found += list(_of_others(_read(path)))
    return found


def _of_table_a1() -> Iterator[Figure]:
    table = read_study_groups(shipped_study_groups(), GROUPS).mapping
    overlapping = exact = 0
    for description, groups in table.items():
        others = StudyGroups({text: names for text, names in table.items() if text != description})
        found = set(_first(Suggester(others, GROUPS), description))
        overlapping += bool(found.intersection(groups))
        exact += found == set(groups)
    yield Figure("Table A1, each row from the others: same groups", f"{exact} of {len(table)}")
    yield Figure("Table A1, each row from the others: a group in common", f"{overlapping} of {len(table)}")


def _of_others(rows: Rows) -> Iterator[Figure]:
    """Scores with all terms, and without those of these descriptions that only general vocabulary vouches for."""
    table = read_study_groups(shipped_study_groups(), GROUPS)
    yield from _scores("real descriptions", rows, Suggester(table, GROUPS))
    own = {word.text for text, _ in rows for word in shipped_vocabulary().words(normalized(text))}
    kept = [term for term in shipped_terms() if term.text not in own or term.source != "general vocabulary"]
    withheld = {term.text for term in shipped_terms()} - {term.text for term in kept}
    name = f"real descriptions, {len(withheld)} of their words withheld"
    yield from _scores(name, rows, Suggester(table, GROUPS, Vocabulary(kept)))


def _scores(name: str, rows: Rows, suggester: Suggester) -> Iterator[Figure]:
    in_groups = [(set(_first(suggester, text)), groups) for text, groups in rows if groups]
    in_none = [_first(suggester, text) for text, groups in rows if groups is not None and not groups]
    right = sum(bool(found & groups) for found, groups in in_groups)
    yield Figure(f"{name}: a group in common", f"{right} of {len(in_groups)}")
    yield Figure(f"{name}: no suggestion if in no group", f"{sum(not found for found in in_none)} of {len(in_none)}")


def _first(suggester: Suggester, description: str) -> Collection[str]:
    ranked = suggester.suggestions(normalized(description)).ranked
    return ranked[0].groups if ranked else ()


def _read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["study_description"], row["acceptable_groups"]) for row in csv.DictReader(file)]
    return [(text, None if groups == "?" else frozenset(filter(None, groups.split(",")))) for text, groups in rows]
