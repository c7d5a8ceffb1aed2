import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_color_lut

from pipeline.phantom.anatomy import Scene, Tissue
from pipeline.phantom.dicom import Encoding, fixed_uid, instance, write
from pipeline.phantom.scanner import AIXPLORER_LIKE, CURVILINEAR, Setup, picture
from pipeline.phantom.studies import clinic
from tests.clinics import small_clinic
from tests.pipeline.phantom.test_clinic import good_files

HEADER = replace(clinic(small_clinic(20, 2), 0)[0].header, regions=True)


@pytest.fixture(scope="module")
def frames():
    tuning = AIXPLORER_LIKE.random_tuning(np.random.default_rng(0))
    setup = Setup(AIXPLORER_LIKE, tuning, CURVILINEAR, 130.0)
    scene = Scene(Tissue.LIVER, ())
    return [picture(scene, setup, np.random.default_rng(0), turn) for turn in (0, 2)]


@pytest.mark.parametrize(
    ("encoding", "syntax"),
    [
        (Encoding.EXPLICIT, "1.2.840.10008.1.2.1"),
        (Encoding.IMPLICIT, "1.2.840.10008.1.2"),
        (Encoding.RLE, "1.2.840.10008.1.2.5"),
        (Encoding.JPEG, "1.2.840.10008.1.2.4.50"),
        (Encoding.RGB, "1.2.840.10008.1.2.1"),
        (Encoding.PALETTE, "1.2.840.10008.1.2.1"),
    ],
)
def test_an_encoding_gives_back_the_picture(tmp_path, frames, encoding, syntax):
    write(instance(HEADER, frames[:1], AIXPLORER_LIKE, encoding), tmp_path / "image")
    dataset = dcmread(tmp_path / "image")
    assert dataset.file_meta.TransferSyntaxUID == syntax
    pixels = dataset.pixel_array
    if encoding is Encoding.PALETTE:
        pixels = (apply_color_lut(pixels, dataset) >> 8)[..., 0]
    if encoding is Encoding.RGB:
        assert np.ptp(pixels, axis=-1).max() == 0
        pixels = pixels[..., 0]
    difference = np.abs(pixels.astype(int) - frames[0].grey)
    assert difference.mean() < (4 if encoding is Encoding.JPEG else 1e-9)


def test_several_frames_are_a_multi_frame_image(tmp_path, frames):
    write(instance(HEADER, frames, AIXPLORER_LIKE, Encoding.RLE), tmp_path / "image")
    dataset = dcmread(tmp_path / "image")
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.3.1"
    assert np.array_equal(dataset.pixel_array, np.stack([frame.grey for frame in frames]))


def test_absent_tags_are_absent(frames):
    header = replace(HEADER, transducer_type=None, transducer_data=None, study=replace(HEADER.study, description=None))
    dataset = instance(header, frames[:1], AIXPLORER_LIKE, Encoding.EXPLICIT)
    assert not {"TransducerType", "TransducerData", "StudyDescription"} & set(dataset.dir())


def test_the_calibration_of_a_region_is_the_pictures(frames):
    dataset = instance(HEADER, frames[:1], AIXPLORER_LIKE, Encoding.EXPLICIT)
    region = dataset.SequenceOfUltrasoundRegions[0]
    height = (region.RegionLocationMaxY1 - region.RegionLocationMinY0 + 1) * region.PhysicalDeltaY
    assert height == pytest.approx(13 + 6 * (1 - np.cos(31 / 60)), abs=0.2)  # depth and the bulge of the face, cm


def test_a_uid_depends_on_its_parts_alone_and_fits_dicom():
    assert fixed_uid(0, "study", 1) == fixed_uid(0, "study", 1) != fixed_uid(0, "study", 2)
    assert fixed_uid(0).startswith("2.25.")
    assert len(fixed_uid(0)) <= 64


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
def test_an_independent_validator_finds_no_error_in_good_files(small_phantom):
    files = good_files(small_phantom) + sorted((small_phantom / "downstream").rglob("*.dcm"))
    for path in files:
        checked = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        errors = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]
        assert not errors, (path.name, errors)
