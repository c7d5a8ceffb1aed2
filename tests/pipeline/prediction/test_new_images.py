"""New images have the same pixels as a manifest's image of the same file."""

import csv

import pytest

from pipeline.dicom.rejections import Reason, Rejected, UnreadableFile
from pipeline.prediction.new_images import FlaggedFrame, NewImage, NewImageReader, read_reference
from pipeline.recipe.downstream import Task
from pipeline.recipe.images import Images
from pipeline.tasks.manifests import read_manifest
from tests.pipeline.archive.synthetic import write_dicom
from tests.pipeline.prediction.conftest import region, tissue

SIZE = Images(height=32, width=64)


def reader(**changes):
    usual = {"modalities": ("US",), "whole_frames": True, "frames_per_cine": 1, "for_masks": False}
    return NewImageReader(SIZE.height, SIZE.width, **(usual | changes))


@pytest.mark.parametrize("regions", [[region()], []])
def test_an_image_is_read_as_in_training(tmp_path, regions):
    fields = {"SequenceOfUltrasoundRegions": regions} if regions else {}
    for number in range(3):
        write_dicom(tmp_path / f"{number}.dcm", tissue(number), **fields)
    with open(tmp_path / "m.csv", "w", encoding="utf-8", newline="") as file:
        sides = enumerate(("train", "val", "test"))
        rows = [["image", "quality", "patient", "split"], *([f"{n}.dcm", "0", f"p{n}", side] for n, side in sides)]
        csv.writer(file).writerows(rows)
    task = Task(
        kind="ordinal",
        classes=("a", "b"),
        manifest=str(tmp_path / "m.csv"),
        epochs=1,
        batch_size=1,
        learning_rate={"resnet50": 0.1},
    )
    table = read_manifest("mine", task, SIZE, str)
    for number, row in enumerate(table.to_pylist()):
        (image,) = reader()(str(tmp_path / f"{number}.dcm")).images
        assert isinstance(image, NewImage)
        assert image.pixels.tobytes() == row["image"]
        assert image.crop.found_by == row["cropped_by"] == ("regions" if regions else "whole")
        assert image.shape == (64, 96)


def test_identifiers_are_read_only_for_masks(tmp_path):
    file = write_dicom(tmp_path / "a.dcm", tissue(), PatientName="Doe^Jane", SequenceOfUltrasoundRegions=[region()])
    assert reader()(str(file)).reference == {}
    reference = reader(for_masks=True)(str(file)).reference
    assert (reference["PatientName"], reference["PatientID"]) == ("Doe^Jane", "P1")
    assert "PatientSex" not in reference


@pytest.mark.parametrize("uid", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_without_one_of_its_uids_no_mask_can_refer_to_an_image(tmp_path, uid):
    file = write_dicom(tmp_path / "a.dcm", tissue())
    content = file.read_bytes()
    tag = {"StudyInstanceUID": b"\x20\0\x0d\0", "SeriesInstanceUID": b"\x20\0\x0e\0"}
    tag |= {"SOPInstanceUID": b"\x08\0\x18\0", "SOPClassUID": b"\x08\0\x16\0"}
    at = content.index(tag[uid] + b"UI") + 8
    length = int.from_bytes(content[at - 2 : at], "little")
    file.write_bytes(content[:at] + b"x" * length + content[at + length :])
    with file.open("rb") as opened, pytest.raises(Rejected, match=uid) as rejected:
        read_reference(opened, file.stat().st_size)
    assert rejected.value.rejection.reason is Reason.UNREADABLE_HEADER


def test_a_missing_file_is_reported_as_vanished_and_not_flagged(tmp_path):
    found = reader()(str(tmp_path / "none.dcm"))
    assert isinstance(found, UnreadableFile) and found.vanished


def test_a_memory_error_flags_the_file(tmp_path, monkeypatch):
    file = write_dicom(tmp_path / "a.dcm", tissue())

    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr("pipeline.prediction.new_images.read_header", greedy)
    (flag,) = reader()(str(file)).images
    assert isinstance(flag, FlaggedFrame) and flag.why.reason is Reason.OVER_LIMITS
