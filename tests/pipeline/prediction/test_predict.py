"""Predictions on new images: scored and flagged rows, their reasons, and no lost file."""

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from struct import pack

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.tag import Tag

from pipeline.dicom.crop import CropRegion
from pipeline.errors import UserError
from pipeline.files import read_table
from pipeline.networks.classifier import Classifier
from pipeline.networks.encoders import build_encoder
from pipeline.prediction.__main__ import main
from pipeline.prediction.new_images import NewImage
from pipeline.prediction.predict import NEW_PREDICTIONS, Inputs, Summary, full_frame_classes, list_inputs, predict
from pipeline.progress import silent
from pipeline.training.tensors import read_tensors, write_tensors
from tests.pipeline.archive.synthetic import dataset, noise, write_dicom
from tests.pipeline.prediction.conftest import HEIGHT, LEFT, MEAN, SD, TOP, WIDTH, classes, region, tissue, write_model

pytestmark = pytest.mark.integration


def run(model: Path, files: Sequence[Path], out: Path, frames_per_cine: int = 1) -> tuple[Summary, list[dict]]:
    summary = predict(model, files, out, frames_per_cine, silent)
    table = read_table(out / "predictions.parquet")
    assert table.schema.equals(NEW_PREDICTIONS)
    return summary, table.to_pylist()


def test_an_ordinal_model_scores_an_image_prepared_as_in_training(grading: Path, tmp_path: Path) -> None:
    frames = [np.kron(tissue(seed), np.ones((2, 2), np.uint8)) for seed in (1, 2)]
    items = []
    for _ in frames:
        items.append(region())
        items[-1].RegionLocationMinX0, items[-1].RegionLocationMaxX1 = 2 * LEFT, 2 * (LEFT + WIDTH) - 1
        items[-1].RegionLocationMinY0, items[-1].RegionLocationMaxY1 = 2 * TOP, 2 * (TOP + HEIGHT) - 1
    files = [
        write_dicom(tmp_path / f"{number}.dcm", frame, SequenceOfUltrasoundRegions=[item])
        for number, (frame, item) in enumerate(zip(frames, items, strict=True))
    ]
    summary, rows = run(grading, files, tmp_path / "out")
    assert summary == Summary(2, 2, 2, {})
    network = Classifier(build_encoder("resnet50"), 3, 0.5)
    network.load_state_dict(read_tensors(grading / "model.safetensors"))
    network.eval()
    for file, frame, row in zip(files, frames, rows, strict=True):
        cut = frame[2 * TOP : 2 * (TOP + HEIGHT), 2 * LEFT : 2 * (LEFT + WIDTH)]
        small = np.asarray(Image.fromarray(cut).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR), np.float32)
        with torch.no_grad():
            logits = network(torch.from_numpy((small - MEAN) / SD)[None, None])[0].numpy()
        assert row["scores"] == pytest.approx((1 / (1 + np.exp(-logits))).tolist(), abs=1e-5)
        assert row["class"] in ("poor", "fair", "good")
        assert (row["file"], row["frame"], row["frames"], row["cropped_by"]) == (str(file), 0, 1, "regions")
        assert row["mask"] is row["pixels"] is row["reason"] is None


def test_the_class_is_the_one_whose_code_fits_the_scores(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "ordinal")
    state = read_tensors(model / "model.safetensors")
    state["head.4.weight"].zero_()
    state["head.4.bias"].copy_(torch.tensor([2.0, -2.0]))  # above the first threshold, not above the second
    write_tensors(model / "model.safetensors", state)
    file = write_dicom(tmp_path / "a.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    _, (row,) = run(model, [file], tmp_path / "out")
    assert row["scores"] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))], abs=1e-6)
    assert row["class"] == "fair"


def test_a_mask_covers_the_full_frame_and_is_empty_outside_the_insonated_area(segmenting: Path, tmp_path: Path) -> None:
    frames = [tissue(seed) for seed in range(3)]
    files = [
        write_dicom(tmp_path / f"{number}.dcm", frame, SequenceOfUltrasoundRegions=[region()])
        for number, frame in enumerate(frames)
    ]
    summary, rows = run(segmenting, files, tmp_path / "out")
    assert summary == Summary(3, 3, 3, {})
    for frame, row in zip(frames, rows, strict=True):
        bright, dark = dcmread(tmp_path / "out" / row["mask"]).pixel_array
        assert np.array_equal(bright, classes(frame) == 1)
        assert np.array_equal(dark, classes(frame) == 2)
        assert row["pixels"] == [160, 160]
        assert row["scores"] is row["class"] is None


def test_an_area_larger_than_the_model_s_input_gets_a_smooth_mask_within_its_outline() -> None:
    inside = np.ones((64, 128), np.bool_)
    inside[:, :40] = False
    image = NewImage(
        0, 1, np.zeros((HEIGHT, WIDTH), np.uint8), CropRegion(8, 72, 4, 132, inside, "detected", None, None), (80, 140)
    )
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = torch.from_numpy((((y - 15.5) ** 2 + (x - 31.5) ** 2) < 100).astype(np.float32))
    mask = full_frame_classes(torch.stack([1 - disc, disc]), image)
    y, x = np.mgrid[:80, :140]
    expected = ((y - 8 - 31.5) ** 2 + (x - 4 - 63.5) ** 2 < 400) & (x >= 44)
    assert (mask[8:72, 4:44] == 0).all()
    assert (mask.astype(bool) != expected).mean() < 0.01
    assert mask[:8].sum() == mask[72:].sum() == mask[:, :4].sum() == mask[:, 132:].sum() == 0


@pytest.fixture
def mixed(tmp_path: Path) -> dict[Path, tuple[str, str | None]]:
    """Files of every kind, with the status and the reason that each must have."""
    folder = tmp_path / "new"
    colour = np.repeat(tissue()[..., None], 3, axis=2)
    colour[TOP + 2 : TOP + 30, LEFT + 4 : LEFT + 40] = (200, 20, 20)
    flow = {"SequenceOfUltrasoundRegions": [region()]}
    cut_off = write_dicom(folder / "cut_off.dcm", tissue(), **flow)
    cut_off.write_bytes(cut_off.read_bytes()[:-3000])
    (folder / "text.txt").write_text("no image")
    blank = np.zeros((64, 96), np.uint8)
    Image.fromarray(tissue()).save(folder / "picture.png")
    return {
        write_dicom(folder / "good.dcm", tissue(), **flow): ("scored", None),
        write_dicom(folder / "ct.dcm", tissue(), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"): (
            "flagged",
            "not_ultrasound",
        ),
        write_dicom(folder / "colour.dcm", colour, **flow): ("flagged", "not_b_mode"),
        write_dicom(folder / "flow.dcm", tissue(), SequenceOfUltrasoundRegions=[region(), region(2)]): (
            "flagged",
            "not_b_mode",
        ),
        write_dicom(folder / "small.dcm", noise(32, 64)): ("flagged", "no_tissue"),
        write_dicom(folder / "blank.dcm", blank, **flow): ("flagged", "no_tissue"),
        cut_off: ("flagged", "incomplete"),
        folder / "text.txt": ("flagged", "not_dicom"),
        folder / "picture.png": ("flagged", "not_dicom"),
    }


def test_every_file_has_a_row_and_unsuitable_images_are_flagged_with_a_reason(
    segmenting: Path, mixed: dict[Path, tuple[str, str | None]], tmp_path: Path
) -> None:
    files = list_inputs([tmp_path / "new"], tmp_path / "out")
    assert set(files.files) == set(mixed) and not files.unlisted
    summary, rows = run(segmenting, files.files, tmp_path / "out")
    assert {Path(row["file"]): (row["status"], row["reason"]) for row in rows} == mixed
    assert [row["file"] for row in rows] == [str(file) for file in files.files]
    assert summary.files == summary.images == len(mixed) == summary.scored + sum(summary.flagged.values())
    assert summary.flagged == {"incomplete": 1, "no_tissue": 2, "not_b_mode": 2, "not_dicom": 2, "not_ultrasound": 1}
    for row in rows:
        assert bool(row["detail"]) == (row["status"] == "flagged")
        assert bool(row["mask"]) == (row["status"] == "scored")
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 1


def test_a_model_trained_on_whole_frames_accepts_them(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "ordinal", cropped_by=("whole",))
    file = write_dicom(tmp_path / "small.dcm", noise(32, 64))
    _, (row,) = run(model, [file], tmp_path / "out")
    assert (row["status"], row["cropped_by"]) == ("scored", "whole")


def test_a_model_of_another_modality_accepts_it_and_flags_ultrasound(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "ordinal", cropped_by=("whole",), modalities=("CT",))
    slice_ = write_dicom(tmp_path / "ct.dcm", noise(40, 40), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    scan = write_dicom(tmp_path / "us.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    _, rows = run(model, [slice_, scan], tmp_path / "out")
    assert [(row["status"], row["reason"]) for row in rows] == [("scored", None), ("flagged", "other_modality")]


def test_frames_of_a_cine_are_evenly_spaced_and_a_bad_frame_loses_no_other(grading: Path, tmp_path: Path) -> None:
    cine = np.stack([tissue(seed) for seed in range(10)])
    cine[5, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] = 0
    file = write_dicom(tmp_path / "cine.dcm", cine, SequenceOfUltrasoundRegions=[region()])
    summary, rows = run(grading, [file], tmp_path / "out", frames_per_cine=5)
    assert [(row["frame"], row["frames"], row["status"]) for row in rows] == [
        (1, 10, "scored"),
        (3, 10, "scored"),
        (5, 10, "flagged"),
        (7, 10, "scored"),
        (9, 10, "scored"),
    ]
    assert summary == Summary(1, 5, 4, {"no_tissue": 1})


def test_more_images_than_fit_a_batch_keep_their_order(segmenting: Path, tmp_path: Path) -> None:
    cine = np.stack([tissue(seed) for seed in range(20)])
    cine[:, TOP, LEFT] = np.where(np.arange(20) % 2, 220, 100)  # one bright pixel more in every other frame
    file = write_dicom(tmp_path / "cine.dcm", cine, SequenceOfUltrasoundRegions=[region()])
    text = tmp_path / "note.txt"
    text.write_text("no image")
    _, rows = run(segmenting, [text, file], tmp_path / "out", frames_per_cine=20)
    assert [row["frame"] for row in rows] == [None, *range(20)]
    assert [row["pixels"][0] for row in rows[1:]] == [160, 161] * 10


def test_the_command_prints_the_counts(
    segmenting: Path, mixed: dict[Path, tuple[str, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(segmenting), str(tmp_path / "new"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "9 files, 9 images: 1 scored, 8 flagged: 1 incomplete, 2 no_tissue, 2 not_b_mode, 2 not_dicom" in said
    assert str(out / "predictions.parquet") in said


def test_a_file_name_that_is_not_utf_8_does_not_stop_the_batch(grading: Path, tmp_path: Path) -> None:
    good = write_dicom(tmp_path / "new" / "good.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    odd = Path(os.fsdecode(os.fsencode(good.parent) + b"/M\xfcller.dcm"))
    good.rename(odd)
    _, (row,) = run(grading, list_inputs([tmp_path / "new"], tmp_path / "out").files, tmp_path / "out")
    assert (row["status"], Path(row["file"]).name) == ("scored", "M\\udcfcller.dcm")


def test_a_file_given_twice_is_predicted_once(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "new" / "a.dcm")
    (tmp_path / "new" / "link.dcm").symlink_to(file)
    assert list_inputs([file, tmp_path / "new", file], tmp_path / "out").files == (file,)


def test_mistakes_name_their_path_and_leave_no_files(
    segmenting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_dicom(tmp_path / "new" / "a.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    (tmp_path / "empty").mkdir()
    done = tmp_path / "done"
    (done / "masks").mkdir(parents=True)
    out = tmp_path / "out"
    for arguments, named in (
        ([str(tmp_path), str(file), "--out", str(out)], "model.json"),
        ([str(segmenting), str(tmp_path / "none"), "--out", str(out)], str(tmp_path / "none")),
        ([str(segmenting), str(tmp_path / "empty"), "--out", str(out)], str(tmp_path / "empty")),
        (
            [str(segmenting), str(tmp_path / "new"), "--out", str(tmp_path / "new" / "out")],
            str(tmp_path / "new" / "out"),
        ),
        ([str(segmenting), str(file), "--out", str(done)], str(done)),
    ):
        assert main([*arguments]) == 1
        said = capsys.readouterr().err
        assert named in said and said.count("\n") == 1
        assert not (out / "predictions.parquet").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('"resnet50"', "backbone"),
        ('"kind": "segmentation"', "kind"),
        ('"layout": 1', "layout"),
        ("{", "model.json"),
    ],
)
def test_an_invalid_model_folder_is_refused_by_field(segmenting: Path, tmp_path: Path, change: str, says: str) -> None:
    broken = {
        '"resnet50"': '"resnet 50"',
        '"kind": "segmentation"': '"kind": "boxes"',
        '"layout": 1': '"layout": 2',
        "{": "[",
    }
    text = (segmenting / "model.json").read_text()
    assert change in text
    (tmp_path / "model.json").write_text(text.replace(change, broken[change]))
    with pytest.raises(UserError, match=says) as error:
        predict(tmp_path, [], tmp_path / "out", 1, silent)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(segmenting: Path, grading: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes((grading / "model.json").read_bytes())
    with pytest.raises(UserError, match=r"model\.safetensors"):
        predict(tmp_path, [], tmp_path / "out", 1, silent)
    (tmp_path / "model.safetensors").write_bytes((segmenting / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"does not fit model.json"):
        predict(tmp_path, [], tmp_path / "out", 1, silent)


def out_of_reach(folder: Path) -> Path:
    """A folder below `folder` whose path is too long for the system, so that not even root can list it."""
    inner, at = os.open(folder, os.O_RDONLY), folder
    while len(str(at)) < 4096:
        os.mkdir("x" * 200, dir_fd=inner)
        deeper = os.open("x" * 200, os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner, at = deeper, at / ("x" * 200)
    os.close(inner)
    return at


def test_a_file_that_cannot_be_opened_affects_its_own_row_only(grading: Path, tmp_path: Path) -> None:
    good = write_dicom(tmp_path / "good.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    gone = tmp_path / "MILLER^ANNA" / "gone.dcm"
    summary, (first, second) = run(grading, [gone, good], tmp_path / "out")
    assert (first["file"], first["status"], first["reason"]) == (str(gone), "flagged", "unreadable")
    assert "MILLER" not in first["detail"]
    assert second["status"] == "scored" and summary == Summary(2, 2, 1, {"unreadable": 1})


def test_a_folder_that_cannot_be_listed_has_a_row_and_the_command_fails_without_its_path(
    grading: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_dicom(tmp_path / "new" / "z.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    (tmp_path / "new" / "MILLER^ANNA").mkdir()
    closed = out_of_reach(tmp_path / "new" / "MILLER^ANNA")
    assert list_inputs([tmp_path / "new"], tmp_path / "out") == Inputs((good,), (closed,))
    assert main([str(grading), str(tmp_path / "new"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "MILLER" not in said.out + said.err and said.err.startswith("1 ") and "unlisted_folder" in said.err
    rows = read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["scored", "flagged"]
    assert (rows[1]["reason"], rows[1]["file"]) == ("unlisted_folder", str(closed))


def test_an_unreachable_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x{300}.*File name too long"):
        list_inputs([tmp_path / ("x" * 300)], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"a\.dcm.*Not a directory"):
        list_inputs([tmp_path / "file" / "a.dcm"], tmp_path / "out")


HOSTILE = (
    *(b"19800230", b"00000101", b"99999999", b"20230229", b"2026-11-30", b"240000", b"235960", b"12:30", b"999Y"),
    *(b"1\\2", b"a\\b^c", b"^^^^^^^^^^", b"a=b=c=d=e", b"\0\0", b"\xff\xfe\xfd", b"\x1b$B\x1b", b"\r\n", b" "),
    *(b"x" * 66, b"x" * 5000, b"1" * 5000, b"-1", b"1e999", b"nan", b"1.2.3.", b"1..2", b"1.02.3", b"../../etc"),
)
"""Values that fields of many kinds cannot have."""
FIELDS = (
    *("PatientBirthDate", "StudyDate", "StudyTime", "PatientName", "PatientID", "IssuerOfPatientID", "PatientSex"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName", "PatientAge", "PatientWeight", "ContentDate"),
    *("AcquisitionDateTime", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    *("NumberOfFrames", "FrameTime", "PixelSpacing", "TransducerType", "Manufacturer"),
)


def test_a_hostile_header_affects_its_own_file_only(
    segmenting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each field in turn holds a hostile value under a VR of its own or of another field."""
    monkeypatch.setattr("pydicom.config.replace_un_with_known_vr", False)
    random = np.random.default_rng(22)
    files = []
    for number, field in enumerate(FIELDS * 3):
        made = dataset(tissue(), SequenceOfUltrasoundRegions=[region()], PatientName="Doe", PatientSex="F")
        tag = Tag(field)
        vr = dictionary_VR(tag) if number % 3 else str(random.choice(["DA", "PN", "UI", "FD", "LO", "OB", "IS"]))
        value = HOSTILE[number % len(HOSTILE)]
        value += bytes(len(value) % 2)
        made[tag] = DataElement(tag, "UN", value)
        files.append(tmp_path / f"{number:02d}.dcm")
        made.save_as(files[-1], enforce_file_format=False)
        written = files[-1].read_bytes()
        group = pack("<HH", tag.group, tag.element)
        unknown = group + b"UN\0\0" + pack("<I", len(value)) + value
        assert written.count(unknown) == 1
        length = b"\0\0" + pack("<I", len(value)) if vr == "OB" else pack("<H", len(value))
        files[-1].write_bytes(written.replace(unknown, group + vr.encode() + length + value))
    summary, rows = run(segmenting, files, tmp_path / "out")
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert summary.scored > len(files) / 2
    for row in rows:
        assert bool(row["mask"]) == (row["status"] == "scored") != bool(row["detail"])
        if row["mask"]:
            mask = dcmread(tmp_path / "out" / row["mask"])
            assert mask.pixel_array.sum() == 320
            for name in ("PatientBirthDate", "StudyDate"):
                assert not mask.get(name) or datetime.strptime(mask[name].value, "%Y%m%d")
            for field in set(FIELDS) & set(mask.dir()):
                assert mask[field].VM <= 1 and not re.search(r"[\\\x00-\x1f]", str(mask[field].value)), field


@pytest.mark.parametrize("born", ["19800230", "00000101", "19000229", "20261301", "1980", "198O0228"])
def test_an_impossible_birth_date_is_left_out_of_the_mask(segmenting: Path, tmp_path: Path, born: str) -> None:
    fields = {"SequenceOfUltrasoundRegions": [region()], "StudyDate": "20261130"}
    files = [
        write_dicom(tmp_path / f"{number}.dcm", tissue(number), PatientBirthDate=date, **fields)
        for number, date in enumerate(("19800228", born, "20240229"))
    ]
    _, rows = run(segmenting, files, tmp_path / "out")
    masks = [dcmread(tmp_path / "out" / row["mask"]) for row in rows]
    assert [str(mask.PatientBirthDate or "") for mask in masks] == ["19800228", "", "20240229"]
    assert {mask.StudyDate for mask in masks} == {"20261130"}


def test_a_full_disk_is_a_user_error(segmenting: Path, tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="out cannot be written"):
        predict(segmenting, [file], tmp_path / "out", 1, silent)


def test_weights_with_non_finite_output_are_refused(tmp_path: Path) -> None:
    for kind in ("ordinal", "segmentation"):
        model = write_model(tmp_path / kind, kind)
        state = read_tensors(model / "model.safetensors")
        next(tensor for tensor in state.values() if tensor.is_floating_point()).fill_(float("nan"))
        write_tensors(model / "model.safetensors", state)
        file = write_dicom(tmp_path / "a.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
        with pytest.raises(UserError, match="weights"):
            predict(model, [file], tmp_path / "out", 1, silent)


def test_every_column_has_a_description() -> None:
    assert all(field.metadata[b"description"] for field in NEW_PREDICTIONS)
    assert isinstance(NEW_PREDICTIONS, pa.Schema)
