"""Links between patients: ties, sides and excluded images."""

import pyarrow as pa
import pytest

from pipeline.cohort.images_across_split import across_split, exclude_images, reject_linking_images
from pipeline.cohort.patient_links import (
    canonical_patients,
    linked_patients,
    merge_overlapping,
    propagate_sides,
    tied_patients,
    with_canonical_patients,
)
from pipeline.cohort.splits import moved_to_validation, save_sides, split_patients
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, IMAGES, PATIENT_SPLITS, REJECTED_FRAMES


def images(*rows: tuple[str, str]) -> pa.Table:
    """One image per (patient, picture); the instance is the index in the list."""
    filled = [
        {
            "sop_instance": f"{number:032x}",
            "frame": 0,
            "patient": patient,
            "shard": "part-00.parquet",
            "position": number,
            "image_digest": picture,
            "source_digest": picture,
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
    assert merge_overlapping(linked_patients(table)) == [frozenset("abc")]


def test_a_group_that_names_one_person_alone_links_no_one():
    groups = [frozenset("ab"), frozenset("bc"), frozenset("ad")]
    assert with_canonical_patients(groups, {"a": "a", "b": "a"}) == [frozenset("ac"), frozenset("ad")]


def test_sides_spread_along_links_and_the_nearer_one_wins():
    chain = [frozenset("ab"), frozenset("bc"), frozenset("cd"), frozenset("de")]
    assert propagate_sides(chain, {"a": "val", "e": "train"}) == {
        "a": "val", "b": "val", "c": "train", "d": "train", "e": "train",
    }  # fmt: skip
    assert propagate_sides([frozenset("ab")], {"z": "val"}) == {"z": "val"}


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
    assert pairs(exclude_images(grown, across_split(grown, SIDES, before))) == [("t", "x"), ("v", "y")]


def test_a_new_image_of_the_other_side_leaves_the_images_and_joins_the_rejected_frames(tmp_path):
    store = Store(tmp_path)
    before, grown = images(("t", "x"), ("v", "y")), images(("t", "x"), ("v", "y"), ("v", "x"), ("v", "z"))
    blank = {field.name: {"string": "-", "bool": False}.get(str(field.type), 1) for field in DICOM_INDEX.schema}
    records = [
        blank | {"file_id": f"f_{number}", "study": f"s{number}", "series": f"r{number}"} | row
        for number, row in enumerate(grown.select(["sop_instance", "patient"]).to_pylist())
    ]
    index = pa.Table.from_pylist(records, schema=DICOM_INDEX.schema)
    IMAGES.write(store.experiment("demo").tables, before)
    save_sides(store, pa.table({"patient": ["t", "v"], "split": ["train", "val"]}, schema=PATIENT_SPLITS.schema))
    row = ("frame", "f_7:0", "blank", "no tissue")
    rejected = pa.Table.from_pylist([dict(zip(REJECTED_FRAMES.schema.names, row, strict=True))]).cast(
        REJECTED_FRAMES.schema
    )
    kept, more = reject_linking_images(grown, rejected, index, earlier=store)
    assert pairs(kept) == [("t", "x"), ("v", "y"), ("v", "z")]
    reasons = dict(zip(more["id"].to_pylist(), more["reason"].to_pylist(), strict=True))
    assert list(reasons.items()) == [("f_2:0", "duplicate_across_split"), ("f_7:0", "blank")]
    assert reject_linking_images(kept, rejected, index, earlier=store) == (kept, rejected)


def test_of_two_equal_new_images_the_one_in_train_stays():
    assert pairs(across_split(images(("v", "x"), ("t", "x")), SIDES, IMAGES.schema.empty_table())) == [("v", "x")]


def test_a_new_patient_that_links_both_sides_loses_the_farther_image():
    before = images(("t", "x"), ("v", "y"))
    grown = images(("t", "x"), ("v", "y"), ("n", "x"), ("n", "y"))
    assert pairs(across_split(grown, SIDES, before)) == [("n", "y")]


@pytest.mark.parametrize("sides", [{}, {"t": "train"}, {"t": "val", "v": "val"}])
def test_without_two_sides_nothing_is_rejected(sides):
    table = images(("t", "x"), ("v", "x"), ("t", "z"))
    assert across_split(table, sides, IMAGES.schema.empty_table()).num_rows == 0


def test_the_decision_is_the_same_when_repeated():
    before = images(("t", "x"), ("v", "y"))
    grown = images(("t", "x"), ("v", "y"), ("n", "x"), ("n", "y"))
    kept = exclude_images(grown, across_split(grown, SIDES, before))
    sides = propagate_sides(linked_patients(kept), SIDES)
    assert sides["n"] == "train"
    assert pairs(across_split(grown, sides, kept)) == [("n", "y")]


def index(*rows: tuple[str, str | None, str | None]) -> pa.Table:
    """One record per (patient, study, series)."""
    return pa.table(
        {
            name: pa.array([row[at] for row in rows], pa.string())
            for at, name in enumerate(("patient", "study", "series"))
        }
    )


def test_patients_that_share_a_study_or_a_series_are_tied_and_null_values_tie_no_patients():
    table = index(
        ("a", "s1", "r1"), ("b", "s1", "r2"), ("c", None, "r2"), ("d", None, None), ("e", None, None), ("f", "s2", "r3")
    )  # fmt: skip
    assert tied_patients(table) == [frozenset("abc")]
    assert canonical_patients(tied_patients(table)) == {"a": "a", "b": "a", "c": "a"}


@pytest.mark.integration
def test_of_many_small_groups_the_linked_ones_are_found_in_linear_time():
    chain = [frozenset((f"{n}", f"{n + 1}")) for n in range(0, 200_000, 2)]  # the quadratic way took hours
    assert len(merge_overlapping([*chain, frozenset(("1", "2"))])) == 100_000 - 1


def sides_of_split(patients: str, previous: dict[str, str], links: list[str], ties: list[str]) -> dict[str, str]:
    before = pa.table({"patient": list(previous), "split": list(previous.values())}) if previous else None
    groups = [[frozenset(group) for group in names] for names in (links, ties)]
    table = split_patients(draws(*patients), before, 0.2, *groups)
    return dict(zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_tied_patients_are_one_person_and_counted_once():
    sides = sides_of_split("abcdef", {}, [], ["abc", "def"])
    assert sides == dict.fromkeys("abc", "val") | dict.fromkeys("def", "train")
    assert sides_of_split("fedcba", {}, [], ["abc", "def"]) == dict.fromkeys("def", "val") | dict.fromkeys(
        "abc", "train"
    )


def test_a_tie_across_sides_moves_all_linked_patients_to_val_and_no_others():
    previous = {"a": "train", "b": "val", "c": "train", "d": "train", "e": "val", "f": "train"}
    sides = sides_of_split("abcdef", previous, ["ac"], ["ab"])
    assert sides == previous | {"a": "val", "c": "val"}
    before = pa.table({"patient": list(previous), "split": list(previous.values())})
    after = pa.table({"patient": list(sides), "split": list(sides.values())})
    assert moved_to_validation(before, after) == ["a", "c"]
    assert moved_to_validation(None, after) == []


def test_a_new_name_of_a_known_patient_gets_that_patients_side_regardless_of_shared_pictures():
    previous = {"t": "train", "v": "val"}
    before = images(("t", "x"), ("v", "y"))
    grown = images(("t", "x"), ("v", "y"), ("n", "x"))
    ties = [frozenset("nv")]
    gone = across_split(grown, previous, before, ties)
    assert pairs(gone) == [("n", "x")]
    links = ["".join(group) for group in linked_patients(exclude_images(grown, gone))]
    assert sides_of_split("tvn", previous, links, ["nv"]) == {"t": "train", "v": "val", "n": "val"}


def test_patients_that_follow_a_tied_patient_to_val_keep_their_images():
    previous = {"t": "train", "v": "val", "u": "train"}
    before = images(("t", "x"), ("u", "x"), ("v", "y"))
    assert across_split(before, previous, before, [frozenset("tv")]).num_rows == 0
    assert sides_of_split("tvu", previous, ["tu"], ["tv"]) == dict.fromkeys("tvu", "val")


def test_a_linked_group_larger_than_the_share_still_leaves_a_patient_in_val():
    sides = sides_of_split("abcdefghij", {}, ["abcde", "fghij"], [])
    assert sorted(sides.values()) == ["train"] * 5 + ["val"] * 5
