"""What each label of the pool goes with beside the anatomy: folder, maker, machine, probe and depth, by patient.

A network can learn a label that is nearly one machine's by the machine's look.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import canonical_patients, tied_patients
from pipeline.cohort.pool import FEWEST_PATIENTS, label_balance, rare_labels
from pipeline.labels.makers import maker_of
from pipeline.labels.probe_names import name_key, names_in
from pipeline.recipe.labels import Labels, ProbeSource
from pipeline.source_numbers import source_numbers
from pipeline.tables import LABEL_REPORT
from pipeline.whitespace import collapse_whitespace

FACTORS: Final = ("folder", "maker", "machine", "probe", "depth")
NEARLY_ALL: Final = 0.9
"""Share of a label's patients from which on it is nearly one folder's or machine's."""
AT_MOST_HALF: Final = 0.5
"""Share of the other patients up to which that says something: otherwise nearly all patients are from there."""
STRONG: Final = 0.5
"""Cramér's V that Cohen (Statistical Power Analysis, 1988, section 7.2) calls large for a label with two values."""
SHUFFLES: Final = 1000
CHANCE: Final = 0.99
"""Quantile of V after shuffling: of five factors at most one in twenty exceeds it by chance."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Association:
    """Cramér's V between a label and a factor, and what V is without an association (quantile CHANCE)."""

    v: float
    chance: float


@dataclass(frozen=True)
class _Patients:
    """The patients of a pool; pseudonyms that share a study are one."""

    row_of: Codes
    """The patient of each image."""
    factors: Mapping[str, list[Any]]
    """The most frequent value of each patient: of `folder` its number (`source_numbers`), of `depth` a quarter of the
    patients' medians. None if absent.
    """

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.factors["folder"])


def label_report(
    pool: pa.Table, index: pa.Table, images: pa.Table, folders: Sequence[bytes], settings: Labels, height: int
) -> pa.Table:
    """One row per label (schema LABEL_REPORT), in the order of `settings`.

    `pool` is a pretraining pool of `images` (IMAGES of `height` rows) and `index` (DICOM_INDEX), `folders` the source
    of each of its images. The unit is the patient: one has a label if one of the images has it, and lacks it if an
    image is known to lack it and none has it; others do not count. An absent value is a value of its own.
    """
    patients = _patients(pool, index, images, folders, height)
    rare = rare_labels(label_balance(pool, settings.names)) if pool.num_rows else list(settings.names)
    by_definition = {name for source in settings.sources if isinstance(source, ProbeSource) for name in source.names}
    rows = []
    for label in settings.names:
        factors = [name for name in FACTORS if not (name == "probe" and label in by_definition)]
        having = _by_patient(pool, label, patients)
        row = _counts(pool, label, having, patients) | _shares(having, patients)
        row |= _associations(having, patients, factors)
        rows.append(row | {"label": label, "flags": ", ".join(_flags(row, label in rare)) or None})
    return pa.Table.from_pylist(rows, schema=LABEL_REPORT.schema)


def bound_to_machines(report: pa.Table) -> dict[str, list[str]]:
    """The labels of a report (LABEL_REPORT) that go with folder, maker or machine, each with the flags that say so."""
    named = {"one folder", "one machine", "follows folder", "follows maker", "follows machine"}
    flags = zip(report["label"].to_pylist(), report["flags"].to_pylist(), strict=True)
    found = {label: [flag for flag in (listed or "").split(", ") if flag in named] for label, listed in flags}
    return {label: its for label, its in found.items() if its}


def cramers_v(positive: npt.NDArray[Any], totals: Codes) -> npt.NDArray[np.float64]:
    """Bias-corrected Cramér's V of a label with two values and a factor (Bergsma, J. Korean Stat. Soc. 42, 2013).

    `totals` (k) are the patients with each value of the factor, all positive, `positive` (..., k) those of them with
    the label, some and not all of the n patients, and k < n. With chi-squared X² of the 2 x k table,

        V² = max(0, X² / n - (k - 1) / (n - 1)) / min(r' - 1, k' - 1),   k' = k - (k - 1)² / (n - 1), r' alike for 2,

    whose denominator is (n - 2) / (n - 1) for every k from 2 to n - 1.
    """
    n, k = totals.sum(), len(totals)
    share = positive.sum(-1, keepdims=True) / n
    x2 = ((positive - share * totals) ** 2 / (totals * share * (1 - share))).sum(-1)
    return np.asarray(np.sqrt(np.maximum(0, x2 / n - (k - 1) / (n - 1)) * (n - 1) / (n - 2)))


def association(label: Codes, factor: Codes) -> Association | None:
    """Cramér's V between `label` (0 or 1 per patient) and `factor`, a code per patient, with its control.

    The control is V after shuffling labels across patients SHUFFLES times (seed 0), which leaves the numbers of both:
    the label's patients by value then follow the multivariate hypergeometric distribution. None if label or factor has
    one value, or if every patient has another.
    """
    _, codes, totals = np.unique(factor, return_inverse=True, return_counts=True)
    having = int(label.sum())
    if not 0 < having < len(label) or not 1 < len(totals) < len(label):
        return None
    positive = np.bincount(codes, weights=label, minlength=len(totals))
    shuffled = np.random.default_rng(0).multivariate_hypergeometric(totals, having, SHUFFLES, method="marginals")
    return Association(float(cramers_v(positive, totals)), float(np.quantile(cramers_v(shuffled, totals), CHANCE)))


def _patients(pool: pa.Table, index: pa.Table, images: pa.Table, folders: Sequence[bytes], height: int) -> _Patients:
    aliases = canonical_patients(tied_patients(index))
    named = [aliases.get(patient, patient) for patient in pool["patient"].to_pylist()]
    position = {patient: number for number, patient in enumerate(dict.fromkeys(named))}
    row_of = np.array([position[patient] for patient in named], np.int64)
    records = index.take(pc.index_in(pool["sop_instance"], value_set=index["sop_instance"]))
    columns = ("manufacturer", "model", "transducer_type", "transducer_data")
    tags = list(zip(*(records[name].to_pylist() for name in columns), strict=True))
    machines = {tag: _machine(*tag) for tag in set(tags)}
    of_images = [machines[tag] for tag in tags]
    factors = {
        "folder": _most_frequent(row_of, source_numbers(folders, pool["patient"].to_pylist()), len(position)),
        **{
            name: _most_frequent(row_of, [one[number] for one in of_images], len(position))
            for number, name in enumerate(("maker", "machine", "probe"))
        },
        "depth": _depth_quarters(row_of, _depths(pool, images, height), len(position)),
    }
    return _Patients(row_of, factors)


def machine_of(manufacturer: str | None, model: str | None) -> str | None:
    """Maker and model of the machine that a record's header names; None if it names neither."""
    maker = maker_of(manufacturer) or collapse_whitespace(manufacturer or "")
    return " ".join(part for part in (maker, collapse_whitespace(model or "")) if part) or None


def _machine(
    manufacturer: str | None, model: str | None, transducer_type: str | None, transducer_data: str | None
) -> tuple[str | None, str | None, str | None]:
    """Maker, machine (maker and model) and probe of a record; None for what its header lacks."""
    maker = maker_of(manufacturer)
    names = names_in(transducer_data, maker)
    maker = maker or collapse_whitespace(manufacturer or "") or None
    probe = name_key(names[0]) if names else collapse_whitespace(transducer_type or "").upper()
    return maker, machine_of(manufacturer, model), probe or None


def _most_frequent(row_of: Codes, values: Sequence[Any], patients: int) -> list[Any]:
    """Each patient's most frequent value; of equally frequent ones that of the first image."""
    counts: list[Counter[Any]] = [Counter() for _ in range(patients)]
    for patient, value in zip(row_of.tolist(), values, strict=True):
        counts[patient][value] += 1
    return [counter.most_common(1)[0][0] for counter in counts]


def _depths(pool: pa.Table, images: pa.Table, height: int) -> list[float | None]:
    """Depth of each image of the pool in millimetres: from the first to the last row of its insonated area."""
    keys = list(zip(images["sop_instance"].to_pylist(), images["frame"].to_pylist(), strict=True))
    spacing = dict(zip(keys, images["row_spacing_mm"].to_pylist(), strict=True))
    wanted = zip(pool["sop_instance"].to_pylist(), pool["frame"].to_pylist(), strict=True)
    found = [spacing.get(key) for key in wanted]
    return [None if one is None else one * height for one in found]


def _depth_quarters(row_of: Codes, depths: Sequence[float | None], patients: int) -> list[int | None]:
    """The quarter, 0 to 3, of each patient's median depth among the patients' medians; None without a depth."""
    of_patient: dict[int, list[float]] = defaultdict(list)
    for patient, depth in zip(row_of.tolist(), depths, strict=True):
        if depth is not None:
            of_patient[patient].append(depth)
    if not of_patient:
        return [None] * patients
    medians = {patient: float(np.median(found)) for patient, found in of_patient.items()}
    edges = np.quantile(list(medians.values()), (0.25, 0.5, 0.75))
    quarters = {patient: int(np.searchsorted(edges, median, side="left")) for patient, median in medians.items()}
    return [quarters.get(patient) for patient in range(patients)]


def _by_patient(pool: pa.Table, label: str, patients: _Patients) -> Codes:
    """1 for a patient with the label, 0 for one without, -1 if it is unknown."""
    found = np.full(patients.count, -1, np.int64)
    np.maximum.at(found, patients.row_of, pool[label].fill_null(-1).to_numpy().astype(np.int64))
    return found


def _counts(pool: pa.Table, label: str, having: Codes, patients: _Patients) -> dict[str, Any]:
    has = pool[label].fill_null(0).to_numpy() == 1
    of_side = {side: np.unique(patients.row_of[has & (np.asarray(pool["split"]) == side)]) for side in ("train", "val")}
    return {
        "images": int(has.sum()),
        "patients": int((having == 1).sum()),
        "patients_without": int((having == 0).sum()),
        **{f"{side}_patients": len(found) for side, found in of_side.items()},
    }


def _shares(having: Codes, patients: _Patients) -> dict[str, Any]:
    """Where most patients with the label are from, and their share of those with it and of those without it."""
    row: dict[str, Any] = {}
    for factor in ("folder", "machine"):
        values = patients.factors[factor]
        having_it = Counter(value for value, has in zip(values, having, strict=True) if has == 1)
        others = Counter(value for value, has in zip(values, having, strict=True) if has == 0)
        row[f"{factor}s"] = len(having_it)
        if having_it:
            top, count = having_it.most_common(1)[0]
            row[factor] = top
            row[f"{factor}_share"] = count / having_it.total()
            row[f"{factor}_share_without"] = others[top] / others.total() if others else None
    return row


def _associations(having: Codes, patients: _Patients, factors: Sequence[str]) -> dict[str, Any]:
    """V and chance of each of `factors`, and which is the strongest."""
    known = having >= 0
    found: dict[str, Association] = {}
    for factor in factors:
        codes: dict[Any, int] = {}
        values = [codes.setdefault(value, len(codes)) for value in patients.factors[factor]]
        one = association(having[known], np.array(values, np.int64)[known])
        if one is not None:
            found[factor] = one
    strongest = max(found, key=lambda factor: found[factor].v, default=None)
    row: dict[str, Any] = {f"{factor}_v": one.v for factor, one in found.items()}
    row |= {f"{factor}_chance": one.chance for factor, one in found.items()}
    return row | {"strongest": strongest}


def _flags(row: Mapping[str, Any], is_rare: bool) -> list[str]:
    """What is wrong with a label, from its `row` without flags."""
    if not row["patients"]:
        return ["absent"]
    flags = ["too rare"] if is_rare else []
    for factor in ("folder", "machine"):
        without = row[f"{factor}_share_without"]
        nearly = row[f"{factor}_share"] >= NEARLY_ALL and without is not None and without <= AT_MOST_HALF
        if nearly and row["patients"] >= FEWEST_PATIENTS:
            flags.append(f"one {factor}")
    strongest = row["strongest"]
    if strongest and row[f"{strongest}_v"] >= max(STRONG, row[f"{strongest}_chance"]):
        flags.append(f"follows {strongest}")
    return flags
