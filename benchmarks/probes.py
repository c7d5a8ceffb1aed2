"""Names of probes of many makers: how many are read, and how many wrongly, with names and with patterns alone."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.measure import Figure
from pipeline.labels.probe import ProbeTags, probe_of, shape_of_probe
from pipeline.labels.probe_tables import Probes, shipped_probes
from pipeline.recipe.labels import ProbeSource

NEITHER = "neither"
"""Shape of the probes in the file of names that are neither linear nor curvilinear."""


def figures(file: Path) -> list[Figure]:
    """Scores of the shipped table on a CSV of Manufacturer, TransducerData and shape, one probe a row."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    tables = {"shipped table": shipped_probes(), "its patterns alone": shipped_probes().patterns}
    return [figure for name, table in tables.items() for figure in _figures(name, rows, Probes(table))]


def _figures(table: str, rows: list[dict[str, str]], probes: Probes) -> list[Figure]:
    counts = score(rows, probes)
    wanted = sum(row["shape"] != NEITHER for row in rows)
    return [
        Figure(f"{table}: linear and curvilinear read", f"{counts['read']} of {wanted}"),
        Figure(f"{table}: wrong", f"{counts['wrong']} of {len(rows)}"),
        Figure(f"{table}: in the worklist", f"{counts['worklist']} of {len(rows)}"),
    ]


def score(rows: Iterable[Mapping[str, str]], probes: Probes) -> Counter[str]:
    """Numbers of rows that are `read`, `wrong`, `other` (known to be neither), or in the `worklist`.

    A probe that is neither and gets one of the two labels is wrong; a linear or curvilinear probe that is taken for
    another shape is `missed`.
    """
    return Counter(outcome(row, probes) for row in rows)


def outcome(row: Mapping[str, str], probes: Probes) -> str:
    """What becomes of a probe, by the default labels linear and curvilinear."""
    tags = ProbeTags(row["Manufacturer"], transducer_data=row["TransducerData"])
    label = probe_of(tags, ProbeSource(), probes)
    if label is not None:
        return "read" if label == row["shape"] else "wrong"
    if shape_of_probe(tags, ProbeSource(), probes) is None:
        return "worklist"
    return "other" if row["shape"] == NEITHER else "missed"
