"""Equal pixels under several names: who is linked, which side, and which image must go."""

import pyarrow as pa
import pytest

from pipeline.cohort.repeats import across_split, linked_groups, linked_patients, spread_sides, without
from pipeline.cohort.splits import split_patients
from pipeline.tables import IMAGES


def images(*rows: tuple[str, str]) -> pa.Table:
    """One image per (patient, picture); the instance is the place in the list."""
    filled = [
        {
            "sop_instance": f"{number:032x}",
            "frame": 0,
            "patient": patient,
            "shard": "part-00.parquet",
            "position": number,
            "image_digest": picture,
            "source_digest": picture,
            "perceptual_hash": "0" * 16,
            "cropped_by": "whole",
        }
        for number, (patient, picture) in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, schema=IMAGES.schema)


def pairs(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["patient"].to_pylist(), table["source_digest"].to_pylist(), strict=True))


def draws(*patients: str) -> pa.Table:
    return pa.table({"patient": list(patients), "draw": [n / len(patients) for n in range(len(patients))]})


def test_patients_that_share_a_picture_are_linked_and_repeats_of_one_patient_are_not():
    table = images(("a", "x"), ("b", "x"), ("b", "y"), ("c", "y"), ("d", "z"), ("d", "z"))
    assert linked_patients(table) == [frozenset("ab"), frozenset("bc")]
    assert linked_groups(linked_patients(table)) == [frozenset("abc")]


def test_sides_spread_along_links_and_the_nearer_one_wins():
    chain = [frozenset("ab"), frozenset("bc"), frozenset("cd"), frozenset("de")]
    assert spread_sides(chain, {"a": "val", "e": "train"}) == {
        "a": "val", "b": "val", "c": "train", "d": "train", "e": "train",
    }  # fmt: skip
    assert spread_sides([frozenset("ab")], {"z": "val"}) == {"z": "val"}


def test_linked_patients_are_split_as_one():
    names = "abcdefghij"
    table = split_patients(draws(*names), None, 0.2, [frozenset("aj"), frozenset("bc")])
    sides = dict(zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert sides["a"] == sides["j"] == "val" and sides["b"] == sides["c"] == "train"
    assert list(sides.values()).count("val") == 2


def test_a_new_patient_joins_the_side_of_the_one_it_is_linked_to():
    previous = split_patients(draws(*"abcde"), None, 0.2)
    side = dict(zip(previous["patient"].to_pylist(), previous["split"].to_pylist(), strict=True))
    for known in "abcde":
        grown = split_patients(draws(*"abcde", "new"), previous, 0.2, [frozenset([known, "new"])])
        sides = dict(zip(grown["patient"].to_pylist(), grown["split"].to_pylist(), strict=True))
        assert sides["new"] == sides[known] and {p: sides[p] for p in side} == side


SIDES = {"t": "train", "v": "val"}


def test_an_image_that_would_link_both_sides_is_rejected_and_the_one_that_was_there_stays():
    before = images(("t", "x"), ("v", "y"))
    grown = images(("t", "x"), ("v", "y"), ("v", "x"), ("t", "y"))
    assert pairs(across_split(grown, SIDES, before)) == [("v", "x"), ("t", "y")]
    assert pairs(without(grown, across_split(grown, SIDES, before))) == [("t", "x"), ("v", "y")]


def test_of_two_that_arrive_together_the_one_in_train_stays():
    assert pairs(across_split(images(("v", "x"), ("t", "x")), SIDES, IMAGES.schema.empty_table())) == [("v", "x")]


def test_a_new_patient_that_links_both_sides_loses_the_farther_image():
    before = images(("t", "x"), ("v", "y"))
    grown = images(("t", "x"), ("v", "y"), ("n", "x"), ("n", "y"))
    assert pairs(across_split(grown, SIDES, before)) == [("n", "y")]


@pytest.mark.parametrize("sides", [{}, {"t": "train"}, {"t": "val", "v": "val"}])
def test_without_two_sides_nothing_is_rejected(sides):
    table = images(("t", "x"), ("v", "x"), ("t", "z"))
    assert across_split(table, sides, IMAGES.schema.empty_table()).num_rows == 0


def test_the_decision_stands_when_asked_again():
    before = images(("t", "x"), ("v", "y"))
    grown = images(("t", "x"), ("v", "y"), ("n", "x"), ("n", "y"))
    kept = without(grown, across_split(grown, SIDES, before))
    sides = spread_sides(linked_patients(kept), SIDES)
    assert sides["n"] == "train"
    assert pairs(across_split(grown, sides, kept)) == [("n", "y")]
