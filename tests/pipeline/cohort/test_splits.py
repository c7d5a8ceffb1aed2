"""Patients to sides: exact, sticky, independent of the key."""

import pyarrow as pa
import pytest

from pipeline.cohort.splits import read_draws, split_patients
from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.privacy.identity import patient_draw, pseudonym
from pipeline.tables import PATIENT_SPLITS


def draws(names, key=b"k" * 16):
    """The private table of patients for raw identities `names`."""
    return pa.table(
        {
            "patient": pa.array([pseudonym(key, "patient", name) for name in names], pa.string()),
            "draw": pa.array([patient_draw(name) for name in names], pa.float64()),
        }
    )


def sides(table):
    return dict(zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("patients", "share", "val"), [(1188, 0.2, 238), (10, 0.2, 2), (2, 0.2, 1), (2, 0.9, 1), (3, 0.1, 1), (1, 0.2, 0)]
)
def test_a_fresh_archive_is_split_exactly(patients, share, val):
    table = split_patients(draws([f"P{n}" for n in range(patients)]), None, share)
    assert table["split"].to_pylist().count("val") == val
    assert table.num_rows == patients
    assert table.schema.equals(PATIENT_SPLITS.schema)
    assert table["patient"].to_pylist() == sorted(table["patient"].to_pylist())


def test_the_lowest_draws_are_val():
    names = [f"P{n}" for n in range(20)]
    lowest = sorted(names, key=patient_draw)[:4]
    found = sides(split_patients(draws(names), None, 0.2))
    assert {patient for patient, side in found.items() if side == "val"} == set(draws(lowest)["patient"].to_pylist())


def test_the_split_does_not_depend_on_the_key_nor_on_the_order():
    names = [f"P{n}" for n in range(50)]
    one, two = b"one key, sixteen bytes", b"two key, sixteen bytes"
    first = sides(split_patients(draws(names, one), None, 0.2))
    second = sides(split_patients(draws(names[::-1], two), None, 0.2))
    for name in names:
        assert first[pseudonym(one, "patient", name)] == second[pseudonym(two, "patient", name)]


def test_a_patient_keeps_its_side_while_the_archive_grows_and_shrinks():
    table, earlier = None, {}
    for count in (5, 6, 30, 31, 12, 200, 100):
        table = split_patients(draws([f"P{n}" for n in range(count)]), table, 0.2)
        now = sides(table)
        assert len(now) == count
        assert all(now[patient] == side for patient, side in earlier.items() if patient in now)
        earlier = now


def test_growth_brings_the_validation_share_back():
    small = split_patients(draws([f"P{n}" for n in range(10)]), None, 0.2)
    grown = split_patients(draws([f"P{n}" for n in range(100)]), small, 0.2)
    assert grown["split"].to_pylist().count("val") == 20


def test_no_patients_is_an_empty_split():
    assert split_patients(draws([]), None, 0.2).num_rows == 0


def test_draws_are_read_for_the_requested_patients(tmp_path):
    table = draws(["a", "b", "c"])
    write_table(tmp_path / "patients.parquet", table)
    wanted = set(table["patient"].to_pylist()[:2])
    assert set(read_draws(tmp_path, wanted)["patient"].to_pylist()) == wanted
    with pytest.raises(UserError, match=r"patients\.parquet .*every patient"):
        read_draws(tmp_path, wanted | {"0" * 32})
    with pytest.raises(UserError, match=r"patients\.parquet .*not exist"):
        read_draws(tmp_path / "elsewhere", wanted)
