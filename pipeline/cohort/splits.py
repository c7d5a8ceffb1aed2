"""The patient split into train and val (paper section 4.2.2), which stays fixed while the archive grows."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import (
    PatientSets,
    canonical_patients,
    merge_overlapping,
    propagate_sides,
    resolve_conflicts,
    with_canonical_patients,
)
from pipeline.errors import DamagedError, UserError
from pipeline.files import damaged_if_unreadable, read_table
from pipeline.mirrored import read_if_intact, read_mirrored, write_mirrored_table
from pipeline.store import Store
from pipeline.tables import PATIENT_SPLITS


def read_draws(private: Path, patients: Collection[str]) -> pa.Table:
    """Columns `patient` and `draw` in [0, 1) of the pseudonyms `patients`, from the private table of the last index.

    A draw depends on the patient, not on the pseudonym key. Raises `UserError` if one is missing.
    """
    path = private / "patients.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist yet: run the job `ingest` first.")
    draws = read_table(path, ["patient", "draw"])
    known = draws.filter(pc.is_in(draws["patient"], value_set=pa.array(sorted(patients), pa.string())))
    if known.num_rows != len(set(patients)):
        raise UserError(f"{path} does not hold every patient of the index: run the job `ingest` again.")
    return known


def split_patients(
    draws: pa.Table,
    previous: pa.Table | None,
    validation_share: float,
    links: PatientSets | None = None,
    ties: PatientSets | None = None,
) -> pa.Table:
    """Each patient's side (schema PATIENT_SPLITS), sorted by patient.

    Patients of `ties` (`tied_patients`), who share a study, are one person; if they were on both sides, they and all
    patients linked to them are in val. Otherwise a patient of `previous` keeps its side. Patients of `links`, who share
    an image, are on one side. New persons fill val in the order of their draws, lowest first, up to
    round(validation_share x persons); each side has at least one person if there are two.
    """
    links, one = links or [], canonical_patients(ties or [])
    patients = draws.sort_by([("draw", "ascending"), ("patient", "ascending")])["patient"].to_pylist()
    before = resolve_conflicts(sides_of(previous), ties or [], links)
    links = with_canonical_patients(links, one)
    order = list(dict.fromkeys(one.get(patient, patient) for patient in patients))
    spread = propagate_sides(links, {one.get(patient, patient): side for patient, side in before.items()})
    sides = _filled(order, spread, links, validation_share)
    rows = [{"patient": patient, "split": sides[one.get(patient, patient)]} for patient in sorted(patients)]
    return pa.Table.from_pylist(rows, schema=PATIENT_SPLITS.schema)


def _filled(order: list[str], spread: dict[str, str], links: PatientSets, validation_share: float) -> dict[str, str]:
    """The side of each person of `order`: that in `spread`; the others fill val to its share, then train."""
    sides = {person: spread[person] for person in order if person in spread}
    wanted = min(max(round(validation_share * len(order)), 1), len(order) - 1)
    lacking = wanted - list(sides.values()).count("val")
    units = _units(order, sides, links)
    if units and len(units) + len(sides) > 1 and "val" not in sides.values():
        lacking = max(lacking, min(map(len, units)))  # the smallest unit may exceed the share
    for unit in units:
        fits = len(unit) <= lacking
        lacking -= len(unit) if fits else 0
        sides |= dict.fromkeys(unit, "val" if fits else "train")
    return sides


def known_sides(store: Store) -> pa.Table:
    """The side of every patient that was ever split (PATIENT_SPLITS), also of those now absent from the archive.

    Raises `UserError` if no intact record of them is left.
    """
    kept = read_mirrored(store.sides, read_sides)
    path = PATIENT_SPLITS.path(store.tables)
    last = read_if_intact(path, read_sides)
    if kept is None and last is None and path.is_file():
        raise UserError(
            f"{path} is damaged and the only record of the split: restore it from a backup, or remove it to draw a new "
            "split and train all encoders again."
        )
    return _table(sides_of(kept) | sides_of(last))


def read_sides(path: Path) -> pa.Table:
    """The table of sides at `path` (PATIENT_SPLITS); raises `DamagedError` if the file is invalid."""
    with damaged_if_unreadable(path):
        sides = read_table(path, PATIENT_SPLITS.schema.names).cast(PATIENT_SPLITS.schema)
    if not set(sides["split"].unique().to_pylist()) <= {"train", "val"}:
        raise DamagedError(path)
    return sides


def save_sides(store: Store, splits: pa.Table) -> None:
    """Write `splits` (PATIENT_SPLITS), and store all sides ever drawn, for patients who return to the archive.

    The latter are private, since they show who was in the archive before.
    """
    write_mirrored_table(store.sides, _table(sides_of(known_sides(store)) | sides_of(splits)))
    PATIENT_SPLITS.write(store.tables, splits)


def _table(sides: Mapping[str, str]) -> pa.Table:
    rows = [{"patient": patient, "split": sides[patient]} for patient in sorted(sides)]
    return pa.Table.from_pylist(rows, schema=PATIENT_SPLITS.schema)


def sides_of(splits: pa.Table | None) -> dict[str, str]:
    """Side by patient of a table of splits (PATIENT_SPLITS); empty without a table."""
    if splits is None:
        return {}
    return dict(zip(splits["patient"].to_pylist(), splits["split"].to_pylist(), strict=True))


def moved_to_validation(previous: pa.Table | None, splits: pa.Table) -> list[str]:
    """The patients that are in train in `previous` and in val in `splits` (both PATIENT_SPLITS), sorted."""
    before = sides_of(previous)
    return sorted(
        patient for patient, side in sides_of(splits).items() if side == "val" and before.get(patient) == "train"
    )


def _units(order: list[str], sides: dict[str, str], links: PatientSets) -> list[list[str]]:
    """The patients without a side in their order; linked patients form one unit at the position of their first."""
    together = {patient: group for group in merge_overlapping(links) for patient in group}
    units: dict[frozenset[str], list[str]] = {}
    for patient in order:
        if patient not in sides:
            units.setdefault(together.get(patient, frozenset([patient])), []).append(patient)
    return list(units.values())
