"""Pairs of near-duplicates: their ids survive a spreadsheet, and those that a reviewer clears count for nothing."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.cohort.leak_review import cleared_pairs, uncleared
from pipeline.cohort.leaks import MAX_SIMILAR_PATIENTS, Leak, pair_id, similar_patients
from pipeline.errors import UserError
from pipeline.store import Store
from pipeline.tables import NEAR_DUPLICATES

HEAD = "pair,likeness,first,second,reviewer,reviewed_on\n"


def is_a_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_no_pair_id_looks_like_a_number_to_a_spreadsheet() -> None:
    names = {pair_id(str(number), "other") for number in range(5000)}
    assert len(names) == 5000
    assert not [name for name in names if is_a_number(name)]
    assert pair_id("1", "2") == pair_id("2", "1")


@pytest.mark.parametrize("name", ["1.23457E+11", "abcdefghijk", "abcdefghijklm", "quality image 3", "12e456789012"])
def test_an_impossible_pair_id_raises_an_error_that_names_file_and_line(tmp_path: Path, name: str) -> None:
    sound = pair_id("one", "other")
    path = tmp_path / "not_the_same.csv"
    path.write_text(f"{HEAD}{sound},0.9,a,b,Dr. X,2026-05-01\n")
    assert cleared_pairs(tmp_path) == {sound}
    path.write_text(f"{HEAD}{sound},0.9,a,b,Dr. X,2026-05-01\n{name},0.9,a,b,Dr. X,2026-05-01\n")
    with pytest.raises(UserError, match=r"not_the_same\.csv, line 3: pair ") as error:
        cleared_pairs(tmp_path)
    assert name not in str(error.value)


def test_a_row_without_review_is_not_cleared_and_half_a_review_is_refused(tmp_path: Path) -> None:
    pair, path = pair_id("one", "other"), tmp_path / "not_the_same.csv"
    path.write_text(f"{HEAD}{pair},0.9,a,b,,\n")
    assert cleared_pairs(tmp_path) == frozenset()
    for review, missing in (("Dr. X,", "reviewed_on"), (",2026-05-01", "reviewer")):
        path.write_text(f"{HEAD}{pair},0.9,a,b,{review}\n")
        with pytest.raises(UserError, match=rf"not_the_same\.csv, line 2: {missing} "):
            cleared_pairs(tmp_path)


def similar(*pairs: tuple[str, str]) -> pa.Table:
    """Near-duplicates (NEAR_DUPLICATES), each of two images, named by their patients and numbers, such as `a1`."""
    rows = [
        {
            "pair": one + other,
            "sop_instance": one,
            "frame": 0,
            "patient": one[0],
            "other_sop_instance": other,
            "other_frame": 0,
            "other_patient": other[0],
            "likeness": 0.9,
        }
        for one, other in pairs
    ]
    return pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES.schema)


def test_a_cleared_pair_links_no_patients_and_the_others_do() -> None:
    table = similar(("c1", "a1"), ("a2", "b1"), ("b2", "a3"))
    assert similar_patients(table, ()) == [frozenset("ab"), frozenset("ac")]
    assert similar_patients(table, {"c1a1"}) == [frozenset("ab")]
    assert similar_patients(table, {"a2b1"}) == [frozenset("ab"), frozenset("ac")], "another pair links a and b"


@pytest.mark.parametrize("first", [True, False])
def test_an_image_that_more_than_ten_patients_share_links_none_of_them(first: bool) -> None:
    others = "bcdefghijkl"
    assert len(others) == MAX_SIMILAR_PATIENTS + 1

    def linked(patients: str) -> list[frozenset[str]]:
        pairs = [("a1", f"{patient}1") for patient in patients]
        return similar_patients(similar(*(pair if first else pair[::-1] for pair in pairs), ("m1", "n1")), ())

    assert linked(others[:-1]) == [*(frozenset(("a", other)) for other in others[:-1]), frozenset("mn")]
    assert linked(others) == [frozenset("mn")]


def test_leaks_that_a_reviewer_has_cleared_are_no_longer_reported(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cleared, left = (Leak(pair_id(name, "other"), 0.9, name, "other", 0, 1) for name in ("one", "two"))
    assert uncleared(store, [cleared, left]) == [cleared, left]
    store.private.mkdir(parents=True)
    (store.private / "not_the_same.csv").write_text(f"{HEAD}{cleared.pair},0.9,one,other,Dr. X,2026-05-01\n")
    assert uncleared(store, [cleared, left]) == [left]
