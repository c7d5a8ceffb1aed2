"""Ids of pairs of near-duplicates survive a spreadsheet, and a reviewer's entries are validated."""

from pathlib import Path

import pytest

from pipeline.cohort.leak_review import cleared_pairs
from pipeline.cohort.leaks import pair_id
from pipeline.errors import UserError

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
