"""Manifests: the tables of good ones, and the error of each mistake."""

import csv
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from pipeline.errors import UserError
from pipeline.recipe.downstream import Task
from pipeline.recipe.images import Images
from pipeline.tasks.manifests import read_manifest
from tests.pipeline.archive.synthetic import noise, write_dicom

SIZE = Images(height=32, width=64)


def task(path, kind="ordinal", classes=("0", "1", "2")):
    return Task(kind=kind, classes=classes, manifest=str(path), epochs=1, batch_size=1, learning_rate={"resnet50": 0.1})


def segmentation(path, *classes):
    return task(path, "segmentation", ("background", *(classes or ("nodule",))))


def read(task):
    return read_manifest("mine", task, SIZE, lambda patient: f"<{patient}>")


def write_csv(path, rows, encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def with_masks(rows):
    return [
        {name: value for name, value in row.items() if name != "quality"} | {"mask": f"{number}_mask.png"}
        for number, row in enumerate(rows)
    ]


def new_row(folder):
    """A row of a seventh patient, with an image of its own."""
    Image.fromarray(noise(64, 64, 99)).save(folder / "99.png")
    return {"image": "99.png", "patient": "p9", "split": "train"}


def mistake(task, says):
    with pytest.raises(UserError, match=says) as error:
        read(task)
    assert "\n" not in str(error.value)
    assert "manifest" in str(error.value).lower()


def test_a_quality_manifest_becomes_a_table_in_its_own_order(tmp_path, rows):
    table = read(task(write_csv(tmp_path / "m.csv", rows)))
    said = ["image_digest", "thumbnails", "source_digest", "cropped_by", "modality"]
    assert table.column_names == ["image_id", "patient", "split", "image", *said, "quality"]
    assert set(table["cropped_by"].to_pylist()) == {"whole"} and set(table["modality"].to_pylist()) == {None}
    assert table["image_id"].to_pylist() == list(range(6))
    assert table["patient"].to_pylist() == [f"<p{number}>" for number in range(6)]
    assert table["split"].to_pylist() == ["train"] * 4 + ["val", "test"]
    assert table["quality"].to_pylist() == [0, 1, 2, 0, 1, 2]
    image = table["image"][0].as_py()
    assert len(image) == 32 * 64 and table["image_digest"][0].as_py() == sha256(image).hexdigest()
    assert len(set(table["source_digest"].to_pylist())) == 6
    expected = np.asarray(Image.fromarray(noise(64, 64, 0)).resize((64, 32), Image.Resampling.BILINEAR))
    assert image == expected.tobytes()


def test_masks_are_brought_to_size_without_new_values(tmp_path, rows):
    table = read(segmentation(write_csv(tmp_path / "m.csv", with_masks(rows))))
    mask = np.frombuffer(table["mask"][2].as_py(), np.uint8).reshape(32, 64)
    expected = np.zeros((32, 64), np.uint8)
    expected[:16, :24] = 1
    assert np.array_equal(mask, expected)


def test_a_dicom_image_and_its_mask_are_cropped_to_its_region(tmp_path, rows):
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 8, 16
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 71, 47
    grey = noise(64, 96, 9)
    write_dicom(tmp_path / "cut.dcm", grey, SequenceOfUltrasoundRegions=[region])
    mask = np.zeros((64, 96), np.uint8)
    mask[20:40, 10:30] = 1
    Image.fromarray(mask).save(tmp_path / "cut.png")
    row = {"image": "cut.dcm", "mask": "cut.png", "patient": "p9", "split": "train"}
    table = read(segmentation(write_csv(tmp_path / "m.csv", [*with_masks(rows), row])))
    assert table["image"][6].as_py() == grey[16:48, 8:72].tobytes()  # of the recipe's size already
    assert table["mask"][6].as_py() == mask[16:48, 8:72].tobytes()


def test_a_mask_s_edges_stay_among_its_classes(tmp_path, rows):
    checks = np.indices((64, 64)).sum(axis=0) // 3 % 2 * 2  # 0 and 2 in turns of three pixels: nothing between is true
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "0_mask.png")
    table = read(segmentation(write_csv(tmp_path / "m.csv", with_masks(rows)), "liver", "kidney"))
    assert set(table["mask"][0].as_py()) == {0, 2}


def test_of_two_classes_255_means_1_and_palette_masks_are_read_by_index(tmp_path, rows):
    plain = np.asarray(Image.open(tmp_path / "1_mask.png"))
    expected = read(segmentation(write_csv(tmp_path / "m.csv", with_masks(rows))))["mask"]
    Image.fromarray(plain * 255).save(tmp_path / "1_mask.png")
    palette = Image.fromarray(np.asarray(Image.open(tmp_path / "2_mask.png")))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "2_mask.png")
    Image.fromarray(np.asarray(Image.open(tmp_path / "3_mask.png")).astype(bool)).save(tmp_path / "3_mask.png")
    assert read(segmentation(tmp_path / "m.csv"))["mask"].equals(expected)


def test_images_can_be_dicom_and_in_other_folders(tmp_path, rows):
    write_dicom(tmp_path / "elsewhere" / "image", noise(64, 64, 0))
    (tmp_path / "manifests").mkdir()
    moved = [row | {"image": f"../{row['image']}"} for row in rows]
    moved[0]["image"] = "../elsewhere/image"
    inside = read(task(write_csv(tmp_path / "m.csv", rows)))
    outside = read(task(write_csv(tmp_path / "manifests" / "m.csv", moved)))
    assert outside["modality"].to_pylist() == ["US", *[None] * 5]
    assert outside.drop_columns(["modality"]).equals(inside.drop_columns(["modality"]))


def test_a_spreadsheet_s_manifest_is_read(tmp_path, rows):
    assert read(task(write_csv(tmp_path / "m.csv", rows, "utf-8-sig"))).num_rows == 6


def test_without_a_split_column_each_patient_gets_one_split(tmp_path, rows):
    for number in range(100):
        Image.fromarray(noise(16, 16, number)).save(tmp_path / f"many_{number}.png")
    many = [{"image": f"many_{n}.png", "quality": "0", "patient": f"p{n % 50}"} for n in range(100)]
    table = read(task(write_csv(tmp_path / "m.csv", many)))
    sides = {}
    for patient, split in zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True):
        assert sides.setdefault(patient, split) == split
    assert [list(sides.values()).count(side) for side in ("train", "val", "test")] == [35, 5, 10]
    shuffled = read(task(write_csv(tmp_path / "n.csv", many[::-1])))
    again = dict(zip(shuffled["patient"].to_pylist(), shuffled["split"].to_pylist(), strict=True))
    assert again == sides


def test_mistakes_in_the_table_name_line_and_column(tmp_path, rows):
    path = tmp_path / "m.csv"
    mistake(task(tmp_path / "none.csv"), r"mine\.manifest .*none\.csv does not exist")
    mistake(segmentation(write_csv(path, rows)), "line 1: no column 'mask'")
    mistake(task(write_csv(path, [row | {"side": "left"} for row in rows])), "line 1: unknown column 'side'")
    mistake(task(write_csv(path, with_masks(rows))), "line 1: no column 'quality'")
    mistake(task(write_csv(path, [*rows, rows[0] | {"image": " "}])), "line 8: image is empty")
    mistake(task(write_csv(path, [*rows, rows[0] | {"patient": ""}])), "line 8: patient is empty")
    mistake(task(write_csv(path, [*rows, rows[0] | {"split": "tset"}])), "line 8: split .* train, val, test")
    mistake(task(write_csv(path, [*rows, rows[0] | {"split": "test"}])), "line 8: split .*test.* train")
    mistake(task(write_csv(path, rows[:5])), "split has no row 'test'")
    unsplit = [{name: row[name] for name in ("image", "quality", "patient")} for row in rows]
    mistake(task(write_csv(path, unsplit[:2])), "3 patients")
    for quality in ("3", "-1", "1.0", "good", "²", "9" * 5000):
        mistake(
            task(write_csv(path, [*rows, rows[0] | {"quality": quality}])),
            "line 8: quality .* 0 to 2",
        )
    path.write_text("image,quality,patient,split\n")
    mistake(task(path), "no rows")
    path.write_text("image,quality,patient,split\n0.png,1,p\n")
    mistake(task(path), "line 2: split is empty")
    path.write_text("image,quality,patient,split\n0.png,1\n")
    mistake(task(path), "line 2: ")
    path.write_bytes(b"image,quality,patient,split\n\xff,1,p,train\n")
    mistake(task(path), "UTF-8")


def test_a_source_is_kept_as_it_is_written_and_without_the_column_there_is_none(tmp_path, rows):
    without = read(task(write_csv(tmp_path / "without.csv", rows)))
    named = [row | {"source": f"Zürich <b>{number}</b>"} for number, row in enumerate(rows)]
    table = read(task(write_csv(tmp_path / "named.csv", named)))
    assert table["source"].to_pylist() == [row["source"] for row in named]
    assert "source" not in without.column_names and table.drop_columns(["source"]).equals(without)


@pytest.mark.parametrize("source", ["", "x" * 65, "two\nlines", "bell\a", "\u202eright to left"])
def test_a_source_that_cannot_be_printed_in_a_table_is_a_mistake(tmp_path, rows, source):
    named = [row | {"source": "north"} for row in rows]
    named[1]["source"] = source
    mistake(task(write_csv(tmp_path / "manifest.csv", named)), "line 3: source is ")


def test_spellings_of_one_patient_are_one_patient(tmp_path, rows):
    path = tmp_path / "set.csv"
    other = new_row(tmp_path) | {"patient": "P0", "split": "test", "quality": "0"}  # p0 is in train
    mistake(task(write_csv(path, [*rows, other])), "line 8: split .*test.* train")
    unsplit = [{name: row[name] for name in ("image", "quality", "patient")} for row in [*rows, other]]
    table = read(task(write_csv(path, unsplit)))
    sides = dict(zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert sides["<p0>"] == sides["<P0>"]
    alone = read(task(write_csv(path, unsplit[:-1])))
    assert alone["split"].to_pylist() == table["split"].to_pylist()[:-1]


def test_mistakes_in_the_files_name_line_and_column(tmp_path, rows):
    path = tmp_path / "m.csv"
    Image.fromarray(np.zeros((63, 64), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.full((64, 64), 2, np.uint8)).save(tmp_path / "two.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (64, 64, 3), np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "lossy.jpg")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder").mkdir()
    for image, says in (
        ("gone.png", "does not exist"),
        ("folder", "does not exist"),
        ("x" * 5000, "does not exist"),
        ("text.png", "cannot be read"),
    ):
        mistake(task(write_csv(path, [*rows, rows[0] | {"image": image}])), f"line 8: image {says}")
    masked = with_masks(rows)
    for mask, says in (
        ("gone.png", "mask does not exist"),
        ("small.png", "mask .*63x64.* 64x64"),
        ("two.png", "mask .* 2; .* 0 to 1"),
        ("colour.png", "mask .*coloured"),
        ("lossy.jpg", "mask .*neither PNG nor DICOM"),
        ("text.png", "mask .*neither PNG nor DICOM"),
    ):
        mistake(segmentation(write_csv(path, [*masked, new_row(tmp_path) | {"mask": mask}])), f"line 8: {says}")
    added = [*masked, new_row(tmp_path) | {"mask": "two.png"}]
    assert read(segmentation(write_csv(path, added), "liver", "kidney")).num_rows == 7
