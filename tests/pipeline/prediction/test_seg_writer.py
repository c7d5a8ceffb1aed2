"""Predicted masks as DICOM SEG: references, UIDs, and validity for other programs."""

import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipeline.downstream.predictor import Predictor
from pipeline.files import read_table
from pipeline.prediction.predict import predict
from pipeline.progress import silent
from tests.pipeline.archive.synthetic import write_dicom
from tests.pipeline.prediction.conftest import classes, region, tissue

pytestmark = pytest.mark.integration

IMAGE = {
    "SOPInstanceUID": "1.2.3.4.5.6.7",
    "StudyInstanceUID": "1.2.3.4",
    "PatientName": "Müller^Jörg",
    "PatientID": "4711",
    "PatientBirthDate": "19700102",
    "PatientSex": "M",
    "AccessionNumber": "A1",
    "StudyID": "S1",
    "StudyDate": "20200304",
    "StudyTime": "101112",
    "ReferringPhysicianName": "House^Gregory",
    "SpecificCharacterSet": "ISO_IR 100",
}
REPEATED = [name for name in IMAGE if name not in {"SOPInstanceUID", "SpecificCharacterSet"}]


def masks(model: Path, out: Path, pixels: np.ndarray, frames_per_cine: int = 1, **fields: object) -> list[Dataset]:
    file = write_dicom(out / "new" / "a.dcm", pixels, SequenceOfUltrasoundRegions=[region()], **fields)
    predict(model, [file], out / "out", frames_per_cine, silent)
    rows = read_table(out / "out" / "predictions.parquet").to_pylist()
    return [dcmread(out / "out" / row["mask"]) for row in rows]


def sources(mask: Dataset) -> list[Dataset]:
    return [
        source
        for group in mask.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for source in derivation.SourceImageSequence
    ]


def test_a_mask_belongs_to_its_image_s_patient_and_study_and_refers_to_it(segmenting: Path, tmp_path: Path) -> None:
    (mask,) = masks(segmenting, tmp_path, tissue(), **IMAGE)
    for name in REPEATED:
        assert mask[name].value == IMAGE[name], name
    assert mask.StudyInstanceUID == "1.2.3.4"
    assert mask.Modality == "SEG"
    assert (mask.Rows, mask.Columns) == (64, 96)
    assert mask.SeriesInstanceUID not in {"1.2.3.4.5", mask.SOPInstanceUID}
    assert [str(segment.SegmentLabel) for segment in mask.SegmentSequence] == ["bright", "dark"]
    (series,) = mask.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4.5"
    referred = [*series.ReferencedInstanceSequence, *sources(mask)]
    assert len(referred) == 3  # once as a whole, once per segment
    for item in referred:
        assert item.ReferencedSOPInstanceUID == "1.2.3.4.5.6.7"
        assert item.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
        assert "ReferencedFrameNumber" not in item


def test_a_cine_s_masks_refer_to_the_frames_they_are_of(segmenting: Path, tmp_path: Path) -> None:
    cine = np.stack([tissue(seed) for seed in range(4)])
    cine[3, 20:24, 20:24] = 10
    made = masks(segmenting, tmp_path, cine, 2, SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1", **IMAGE)
    assert [[int(source.ReferencedFrameNumber) for source in sources(mask)] for mask in made] == [[2, 2], [4, 4]]
    assert {source.ReferencedSOPClassUID for mask in made for source in sources(mask)} == {
        "1.2.840.10008.5.1.4.1.1.3.1"
    }
    assert len({mask.SOPInstanceUID for mask in made}) == 2
    assert len({mask.SeriesInstanceUID for mask in made}) == 1
    assert [int(mask.InstanceNumber) for mask in made] == [1, 2]
    for number, mask in zip((1, 3), made, strict=True):
        assert np.array_equal(mask.pixel_array[1], classes(cine[number]) == 2)


def test_the_same_image_and_model_give_a_mask_of_the_same_name(segmenting: Path, tmp_path: Path) -> None:
    (first,), (again,) = (masks(segmenting, tmp_path / name, tissue(), **IMAGE) for name in ("a", "b"))
    (other,) = masks(segmenting, tmp_path / "c", tissue(), **(IMAGE | {"SOPInstanceUID": "1.2.3.9"}))
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
    assert first.SeriesInstanceUID == again.SeriesInstanceUID == other.SeriesInstanceUID


def test_an_empty_mask_has_every_segment(segmenting: Path, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(80, 120, (64, 96), dtype=np.uint8)
    (mask,) = masks(segmenting, tmp_path, grey, **IMAGE)
    assert mask.pixel_array.shape == (2, 64, 96)
    assert not mask.pixel_array.any()


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_an_image_of_a_retired_class_with_invalid_fields_gets_a_mask(segmenting: Path, tmp_path: Path) -> None:
    odd = {"PatientBirthDate": "1.1.70", "StudyDate": "2020-03-04", "StudyTime": "noon", "PatientSex": "male"}
    retired = "1.2.840.10008.5.1.4.1.1.6"
    (mask,) = masks(segmenting, tmp_path, tissue(), **(IMAGE | odd | {"SOPClassUID": retired}))
    assert [mask[name].value or "" for name in odd] == ["", "", "", ""]
    assert {source.ReferencedSOPClassUID for source in sources(mask)} == {retired}


def test_an_image_to_which_no_mask_could_refer_is_flagged(segmenting: Path, tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", tissue(), SequenceOfUltrasoundRegions=[region()], StudyInstanceUID=None)
    predict(segmenting, [file], tmp_path / "out", 1, silent)
    (row,) = read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert (row["reason"], row["mask"]) == ("unreadable_header", None)
    assert "StudyInstanceUID" in row["detail"]


def test_highdicom_finds_the_segments_by_their_image(segmenting: Path, tmp_path: Path) -> None:
    masks(segmenting, tmp_path, tissue(), **IMAGE)
    mask = highdicom.seg.segread(tmp_path / "out" / "masks" / "000001.dcm")
    assert mask.number_of_segments == 2
    found = mask.get_pixels_by_source_instance(["1.2.3.4.5.6.7"], combine_segments=True)
    assert np.array_equal(found[0], classes(tissue()))


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian: dicom3tools) is not installed")
@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"])
def test_a_validator_finds_no_error(segmenting: Path, tmp_path: Path, kind: str) -> None:
    cine = np.stack([tissue(seed) for seed in range(3)])
    masks(segmenting, tmp_path, cine if ".3." in kind[-4:] else cine[0], SOPClassUID=kind, **IMAGE)
    done = subprocess.run(
        ["dciodvfy", "-new", str(tmp_path / "out" / "masks" / "000001.dcm")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []


def test_a_mask_s_version_is_that_of_the_weights(segmenting: Path, tmp_path: Path) -> None:
    (mask,) = masks(segmenting, tmp_path, tissue(), **IMAGE)
    (algorithm,) = mask.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == Predictor(segmenting).description.name
    assert len(algorithm.AlgorithmVersion) == 16
