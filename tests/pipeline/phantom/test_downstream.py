import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from pipeline.phantom.anatomy import Ellipse, Tissue
from pipeline.phantom.downstream import (
    LIVER_KIDNEY,
    NODULE,
    cases,
    graded_view,
    labelled_sets,
    write_case,
    write_manifests,
)
from pipeline.phantom.organs import nodule
from pipeline.phantom.settings import Amount, LabelledAmount, Phantom, load_phantom

DEMO = labelled_sets(Phantom())
LABELLED = LabelledAmount(
    train=Amount(images=7, patients=3), val=Amount(images=1, patients=1), test=Amount(images=2, patients=1)
)


def rows_of(folder, name):
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def grey(path):
    return dcmread(path).pixel_array if path.suffix == ".dcm" else np.asarray(Image.open(path))


def test_manifests_name_files_that_are_there(small_phantom):
    folder = small_phantom / "downstream"
    named = set()
    for name, label in (("quality", "quality"), ("liver_kidney", "mask"), ("thyroid", "mask")):
        rows = rows_of(folder, name)
        assert list(rows[0]) == ["image", label, "patient", "split"]
        named |= {row["image"] for row in rows} | {row["mask"] for row in rows if label == "mask"}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - named == {"quality.csv", "liver_kidney.csv", "thyroid.csv"}
    assert named <= there


@pytest.mark.parametrize(("name", "values"), [("liver_kidney", {0, 1, 2}), ("thyroid", {0, 1})])
def test_masks_have_their_images_size_and_the_classes_values(small_phantom, name, values):
    folder = small_phantom / "downstream"
    for row in rows_of(folder, name):
        mask = np.asarray(Image.open(folder / row["mask"]))
        assert mask.shape == grey(folder / row["image"]).shape
        assert set(np.unique(mask)) == values


def test_masks_mark_the_darker_kidney_and_the_brighter_liver(small_phantom):
    folder = small_phantom / "downstream"
    for row in rows_of(folder, "liver_kidney"):
        mask, image = np.asarray(Image.open(folder / row["mask"])), grey(folder / row["image"])
        assert image[mask == 1].mean() > 1.2 * image[mask == 0].mean()


def test_demo_sets_have_their_sizes_and_no_patient_twice(tmp_path):
    write_manifests(tmp_path, DEMO, 0)
    everyone = []
    for name, sizes in (("quality", (120, 30, 50)), ("liver_kidney", (72, 16, 36)), ("thyroid", (72, 16, 36))):
        rows = rows_of(tmp_path, name)
        counts = Counter(row["split"] for row in rows)
        assert (counts["train"], counts["val"], counts["test"]) == sizes
        sides = {(row["patient"], row["split"]) for row in rows}
        assert len({patient for patient, _ in sides}) == len(sides)
        assert sum(split == "test" for _, split in sides) >= 8
        everyone += [patient for patient, _ in sides]
    assert len(set(everyone)) == len(everyone)


def test_the_papers_sets_have_the_sizes_of_table_1():
    table_1 = {"quality": (2548, 343, 335), "liver_kidney": (391, 100, 100), "thyroid": (298, 74, 94)}
    named = cases(labelled_sets(load_phantom("paper", {})))
    for name, sizes in table_1.items():
        own = [case for case in named if case.of.name == name]
        counts = Counter(case.split for case in own)
        assert (counts["train"], counts["val"], counts["test"]) == sizes
        assert len({case.image_path for case in own}) == len(own) == sum(sizes)
        splits_of = {(case.patient, case.split) for case in own}
        assert len({patient for patient, _ in splits_of}) == len(splits_of)
    assert len(named) == 3226 + 591 + 466


def test_a_splits_images_are_shared_out_evenly_among_its_patients():
    (seven_of_three,) = [s for s in labelled_sets(Phantom(thyroid=LABELLED)) if s.name == "thyroid"]
    images = Counter((case.split, case.patient) for case in cases((seven_of_three,)))
    assert images == {("train", 0): 3, ("train", 1): 2, ("train", 2): 2, ("val", 3): 1, ("test", 4): 2}


def test_demo_qualities_are_five_and_none_is_a_majority(tmp_path):
    write_manifests(tmp_path, DEMO, 0)
    for split in ("train", "val", "test"):
        grades = Counter(row["quality"] for row in rows_of(tmp_path, "quality") if row["split"] == split)
        assert set(grades) == set("01234")
        assert max(grades.values()) < 0.3 * sum(grades.values())


def test_nodules_are_large_enough_to_see_and_in_many_places(tmp_path):
    thyroid = [case for case in cases(DEMO) if case.of.name == "thyroid"][::8]
    shares, columns = [], []
    for case in thyroid:
        write_case(tmp_path, case, 0)
        mask = np.asarray(Image.open(tmp_path / case.mask_path))
        shares.append(mask.mean())
        columns.append(np.nonzero(mask)[1].mean() / mask.shape[1])
    assert 0.015 < min(shares) < max(shares) < 0.14
    assert np.std(columns) > 0.1


def test_every_kind_of_nodule_is_wholly_of_the_nodules_class():
    for kind in ("solid", "halo", "cystic", "mixed"):
        layers = nodule(Ellipse(0, 10, 5, 5), kind, np.random.default_rng(0))
        assert {layer.tissue for layer in layers} <= set(NODULE)


@pytest.mark.integration
def test_clearer_grades_are_not_simply_brighter(tmp_path):
    quality = [case for case in cases(DEMO) if case.of.name == "quality" and case.split == "train"][:60]
    write_manifests(tmp_path, DEMO, 0)
    grades = {row["image"]: int(row["quality"]) for row in rows_of(tmp_path, "quality")}
    means = []
    for case in quality:
        write_case(tmp_path, case, 0)
        means.append((grades[case.image_path], grey(tmp_path / case.image_path).mean()))
    pouch = np.array([pair for pair in means if pair[0] > 0])
    assert abs(np.corrcoef(pouch.T)[0, 1]) < 0.4


def test_liver_and_kidney_classes_are_the_recipes():
    assert set(LIVER_KIDNEY.values()) == {1, 2}


@pytest.fixture(scope="module")
def graded():
    """Grades and views of every second image of the quality set."""
    return [graded_view(case, 0) for case in cases(DEMO) if case.of.name == "quality" and case.image % 2]


@pytest.mark.integration
def test_clearer_grades_show_more_of_the_kidney(graded):
    seen = []
    for grade, view in graded:
        kidney = view.mask(LIVER_KIDNEY) == 2
        lit = np.count_nonzero(view.grey[kidney] > np.median(view.grey[view.inside]) / 2)
        seen.append((grade, lit * view.pixel_mm**2))
    grades, area = np.array(seen).T
    assert area[grades == 0].max() == 0
    assert area[(grades == 1) | (grades == 2)].mean() < 0.9 * area[grades >= 3].mean()


def test_no_single_cause_determines_the_grade(graded):
    ribs = {grade: set() for grade in range(5)}
    for grade, view in graded:
        ribs[grade].add(sum(layer.tissue is Tissue.BONE for layer in view.scene.wall))
    assert all(len(ribs[grade]) > 1 for grade in (1, 2, 3, 4))
