"""Masks as DICOM SEG in a manifest, written by highdicom, and the error of each mistake."""

import highdicom
import numpy as np
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from tests.pipeline.archive.synthetic import noise, write_dicom
from tests.pipeline.tasks.test_manifests import mistake, read, segmentation, write_csv

ORGANS = ("liver", "kidney")


def organs(height=64, width=96):
    """Class numbers: the first organ above, the second below."""
    values = np.zeros((height, width), np.uint8)
    values[18:28, 12:40] = 1
    values[32:44, 20:60] = 2
    return values


def write_seg(path, image, masks, kind=SegmentationTypeValues.BINARY):
    """A SEG of the file `image` with a segment per item of `masks`, label to mask, numbered in their order."""
    source = dcmread(image)
    for name in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"):
        if name not in source:
            setattr(source, name, "")
    source.StudyTime, source.ReferringPhysicianName = "", ""
    described = [
        SegmentDescription(number, label, codes.SCT.Tissue, codes.SCT.Tissue, SegmentAlgorithmTypeValues.MANUAL)
        for number, label in enumerate(masks, start=1)
    ]
    Segmentation(
        [source],
        np.stack(list(masks.values()), axis=-1)[np.newaxis].astype(np.uint8),
        kind,
        described,
        highdicom.UID(),
        1,
        highdicom.UID(),
        1,
        "maker",
        "model",
        "1",
        "1",
        omit_empty_frames=False,
    ).save_as(path)
    return path


def by_label(values, *names):
    return {name: values == ORGANS.index(name) + 1 for name in names or ORGANS}


@pytest.fixture
def rows(tmp_path):
    """Rows of a manifest of three patients: DICOM images of 64 x 96, and PNG masks that stay as they are."""
    made = []
    for number, split in enumerate(("train", "val", "test")):
        write_dicom(tmp_path / f"{number}.dcm", noise(64, 96, number), SOPInstanceUID=f"1.2.3.{number}")
        Image.fromarray(organs()).save(tmp_path / f"{number}.png")
        made.append({"image": f"{number}.dcm", "mask": f"{number}.png", "patient": f"p{number}", "split": split})
    return made


def masked(tmp_path, rows, mask):
    return segmentation(write_csv(tmp_path / "m.csv", [*rows[1:], rows[0] | {"mask": mask}]), *ORGANS)


def test_a_seg_gives_the_same_table_as_a_png(tmp_path, rows):
    expected = read(segmentation(write_csv(tmp_path / "m.csv", rows), *ORGANS))
    for number in (0, 2):
        write_seg(tmp_path / f"{number}.seg", tmp_path / f"{number}.dcm", by_label(organs()))
        rows[number]["mask"] = f"{number}.seg"
    assert read(segmentation(write_csv(tmp_path / "m.csv", rows), *ORGANS)).equals(expected)


def test_segments_are_identified_by_label_regardless_of_number_and_case(tmp_path, rows):
    expected = read(masked(tmp_path, rows, "0.png"))["mask"]
    shuffled = by_label(organs(), "kidney", "liver")
    write_seg(tmp_path / "0.seg", tmp_path / "0.dcm", {" Kidney": shuffled["kidney"], "LIVER": shuffled["liver"]})
    assert read(masked(tmp_path, rows, "0.seg"))["mask"].equals(expected)


def test_an_organ_that_is_not_in_the_image_needs_no_segment(tmp_path, rows):
    write_seg(tmp_path / "0.seg", tmp_path / "0.dcm", by_label(organs(), "kidney"))
    mask = np.frombuffer(read(masked(tmp_path, rows, "0.seg"))["mask"][2].as_py(), np.uint8)
    assert set(mask) == {0, 2}


def test_several_segments_of_one_class_are_one_mask_even_if_they_overlap(tmp_path, rows):
    expected = read(masked(tmp_path, rows, "0.png"))["mask"]
    kidney = organs() == 2
    upper, lower = kidney.copy(), kidney.copy()
    upper[40:], lower[:36] = False, False
    write_seg(tmp_path / "0.seg", tmp_path / "0.dcm", {"kidney": upper, "liver": organs() == 1, "KIDNEY ": lower})
    assert read(masked(tmp_path, rows, "0.seg"))["mask"].equals(expected)


def test_a_seg_is_cropped_with_its_image(tmp_path, rows):
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 8, 16
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 71, 47
    image = write_dicom(tmp_path / "0.dcm", noise(64, 96), SequenceOfUltrasoundRegions=[region])
    write_seg(tmp_path / "0.seg", image, by_label(organs()))
    table = read(masked(tmp_path, rows, "0.seg"))
    assert table["mask"][2].as_py() == organs()[16:48, 8:72].tobytes()  # of the recipe's size already
    assert table["cropped_by"].to_pylist() == ["whole", "whole", "regions"]
    assert table["modality"].to_pylist() == ["US", "US", "US"]


def test_a_seg_may_be_of_a_picture_that_has_no_uid(tmp_path, rows):
    Image.fromarray(noise(64, 96, 0)).save(tmp_path / "0.jpg", quality=100)
    write_seg(tmp_path / "0.seg", tmp_path / "0.dcm", by_label(organs()))
    rows[0]["image"] = "0.jpg"
    table = read(masked(tmp_path, rows, "0.seg"))
    assert table["mask"][2] == table["mask"][0]
    assert table["modality"].to_pylist() == ["US", "US", None]


def frames_of(path, change):
    seg = dcmread(path)
    for number, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        change(number, group.DerivationImageSequence[0].SourceImageSequence[0])
    seg.save_as(path)


def test_of_a_seg_of_a_cine_only_the_first_frame_counts(tmp_path, rows):
    values = organs()
    pair = {"liver": values == 1, "kidney": np.roll(values == 1, 20, axis=1)}
    path = write_seg(tmp_path / "0.seg", tmp_path / "0.dcm", pair)

    def both_of_the_liver(number, source):
        source.ReferencedFrameNumber = number + 1

    frames_of(path, both_of_the_liver)
    seg = dcmread(path)
    seg.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
    seg.save_as(path)
    mask = np.frombuffer(read(masked(tmp_path, rows, "0.seg"))["mask"][2].as_py(), np.uint8).reshape(32, 64)
    png = np.frombuffer(read(masked(tmp_path, rows, "0.png"))["mask"][2].as_py(), np.uint8).reshape(32, 64)
    assert np.array_equal(mask, np.where(png == 1, 1, 0))


def test_mistakes_name_line_and_column(tmp_path, rows):
    image, values = tmp_path / "0.dcm", organs()
    write_seg(tmp_path / "other.seg", tmp_path / "1.dcm", by_label(values))
    write_seg(tmp_path / "spleen.seg", image, {"liver": values == 1, "spleen": values == 2})
    write_seg(tmp_path / "overlap.seg", image, {"liver": values > 0, "kidney": values == 2})
    write_seg(tmp_path / "fraction.seg", image, by_label(values), SegmentationTypeValues.FRACTIONAL)
    small = write_dicom(tmp_path / "small.dcm", noise(32, 96), SOPInstanceUID="1.2.3.0")
    write_seg(tmp_path / "small.seg", small, by_label(organs()[:32]))
    whole = write_seg(tmp_path / "cut.seg", image, by_label(values)).read_bytes()
    (tmp_path / "cut.seg").write_bytes(whole[:-500])
    twice = write_seg(tmp_path / "twice.seg", image, {"liver": values == 1, "kidney": values == 2})
    seg = dcmread(twice)
    seg.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
    seg.save_as(twice)
    (tmp_path / "wild.seg").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    for mask, says in (
        ("other.seg", "another image"),
        ("spleen.seg", "segment 2 .*background, liver, kidney"),
        ("overlap.seg", "overlap"),
        ("fraction.seg", "SegmentationType .*0062,0001.*BINARY"),
        ("small.seg", "32x96.* 64x96"),
        ("cut.seg", "cannot be read"),
        ("twice.seg", "several frames"),
        ("1.dcm", "no segmentation"),
        ("wild.seg", "cannot be read"),
    ):
        mistake(masked(tmp_path, rows, mask), f"line 4: mask.*{says}")
