"""A mapping's description equals a header's, regardless of the white space between their words."""

import csv

import pytest

from pipeline.labels.study_groups import read_study_groups


@pytest.mark.parametrize("between", ["  ", "\u00a0", "\t", "\u3000", "\u200b", "\u2060"], ids=ascii)
def test_a_row_maps_descriptions_that_differ_only_in_white_space(tmp_path, between):
    with (tmp_path / "groups.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["study_description", "groups"], [f"left{between}lobe", "Abdomen"]])
    assert set(read_study_groups(tmp_path / "groups.csv", ("abdomen", "other")).mapping) == {"LEFT LOBE"}
