"""The label report in words: a sentence per label, Cramér's V by label and factor, and pairs of labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.cohort.label_report import FACTORS
from pipeline.markdown import inline, pipe_table
from pipeline.recipe.labels import BinsSource, Labels, ProbeSource

EXPECTED: Final = 5
"""Patients whom two independent labels would share: below it, that none shares them says nothing."""


@dataclass(frozen=True)
class LabelPairs:
    """Pairs of labels that cannot be told apart, or exclude each other."""

    always: list[tuple[str, str]]
    """On the same images."""
    implied: list[tuple[str, str, int]]
    """Every image with the first has the second, but not the other way round; how many images have the first."""
    never: list[tuple[str, str]]
    """On no common image, although independent labels would share EXPECTED patients or more."""


def label_pairs(pool: pa.Table, settings: Labels) -> LabelPairs:
    """Pairs of labels among the images of `pool` for which both are known, in the order of `settings`.

    The labels of a probe or of ranges exclude each other by definition and are not compared.
    """
    columns = {name: pool[name].fill_null(-1).to_numpy() for name in settings.names}
    patient = np.unique(np.array(pool["patient"].to_pylist(), str), return_inverse=True)[1]
    by_definition = {
        pair
        for source in settings.sources
        if isinstance(source, ProbeSource | BinsSource)
        for pair in combinations(source.names, 2)
    }
    pairs = LabelPairs([], [], [])
    for one, other in combinations(settings.names, 2):
        known = (columns[one] >= 0) & (columns[other] >= 0)
        has, also = known & (columns[one] == 1), known & (columns[other] == 1)
        if not has.any() or not also.any() or (one, other) in by_definition:
            continue
        if (has == also).all():
            pairs.always.append((one, other))
        elif not (has & ~also).any():
            pairs.implied.append((one, other, int(has.sum())))
        elif not (also & ~has).any():
            pairs.implied.append((other, one, int(also.sum())))
        elif not (has & also).any():
            patients = [len(set(patient[mask])) for mask in (has, also, known)]
            if patients[0] * patients[1] >= EXPECTED * patients[2]:
                pairs.never.append((one, other))
    return pairs


def in_words(report: pa.Table, pairs: LabelPairs) -> str:
    """The report (LABEL_REPORT) and the pairs as Markdown."""
    rows = report.to_pylist()
    sentences = "\n".join(f"- {_sentence(row)}" for row in rows)
    head = ("label", *FACTORS)
    table = pipe_table(head, [[inline(row["label"]), *(_v(row, factor) for factor in FACTORS)] for row in rows], 1)
    listed = "\n".join(f"- {line}" for line in _lines(pairs)) or "- No two labels are always, or never, together."
    return (
        f"{sentences}\n\nCramér's V between label and factor, by patient, and in brackets what chance reaches once in "
        f"100 times:\n\n{table}\n{listed}\n"
    )


def _sentence(row: Mapping[str, Any]) -> str:
    label = f"**{inline(row['label'])}**"
    if not row["patients"]:
        return f"{label}: no image of the pool has it."
    found = (
        f"{label}: images {row['images']}, patients {row['patients']} (train {row['train_patients']}, "
        f"val {row['val_patients']}), patients without it {row['patients_without']}."
    )
    places = [_place(row, "folder", f"Folder {row['folder']}"), _place(row, "machine", row["machine"] or "No machine")]
    flags = f" **{inline(row['flags'])}**" if row["flags"] else ""
    return f"{found} {' '.join(places)}{flags}"


def _place(row: Mapping[str, Any], factor: str, name: str) -> str:
    without = row[f"{factor}_share_without"]
    others = "" if without is None else f" and {without:.0%} of those without it"
    return f"{inline(name)}: {row[f'{factor}_share']:.0%} of the patients with it{others}."


def _v(row: Mapping[str, Any], factor: str) -> str:
    v = row[f"{factor}_v"]
    return "–" if v is None else f"{v:.2f} ({row[f'{factor}_chance']:.2f})"


def _lines(pairs: LabelPairs) -> Iterator[str]:
    for one, other in pairs.always:
        yield f"{inline(one)} and {inline(other)} are on the same images: no method can tell them apart."
    for one, other, images in pairs.implied:
        yield f"Every image with {inline(one)} also has {inline(other)} ({images})."
    if pairs.never:
        yield f"Never on one image: {', '.join(f'{inline(one)} and {inline(other)}' for one, other in pairs.never)}."
