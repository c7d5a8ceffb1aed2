"""Real files, good and bad: each has the right reason, and every ultrasound image decodes.

The expected values come from pydicom alone, in a separate loop; if pydicom cannot decide, they are listed.
"""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_color_lut

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.listing import locate
from pipeline.cohort.pool import patients_on_both_sides, pretraining_pool
from pipeline.cohort.splits import read_draws, split_patients
from pipeline.dicom.header import Header, read_header
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Rejected
from pipeline.images.cache import load_pixels
from pipeline.labels.study_groups import read_study_groups
from pipeline.labels.weak_labels import unmapped_descriptions, weak_labels
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.recipe.labels import Labels
from tests.pipeline.archive.real import shared_data
from tests.pipeline.archive.synthetic import KEY, index_folder

SIZE = Images(height=64, width=96)
WHEEL = Path(pydicom.data.__file__).parent
"""188 files with DICOM content or made to look like it, and the package's own Python and JSON files."""

ULTRASOUND = {
    "wheel": {
        "ExplVR_BigEnd.dcm",
        "examples_jpeg2k.dcm",
        "examples_palette.dcm",
        "examples_rgb_color.dcm",
        "examples_ybr_color.dcm",
    },
    "samples": {
        "cornerstoneWADOImageLoader__no-pixel-spacing.dcm",
        "dcm4che__YBR_422.dcm",
        "dcm4che__jpeg-ls-Palette.dcm",
        "dicom-test-files__US1_RLE",
        "fo-dicom__GH364.dcm",
        "orthanc-tests__2023-04-21-RLEPlanarConfigurationYBR_FULL.dcm",
        "orthanc-tests__Issue16.dcm",
        "orthanc-tests__jp2k91YBR-ICT.dcm",
        "pydicom-data__OBXXXX1A.dcm",
        "pydicom-data__OBXXXX1A_expb.dcm",
        "pydicom-data__OBXXXX1A_rle_2frame.dcm",
        "pydicom-data__color-pl.dcm",
        "pydicom-data__gdcm-US-ALOKA-16.dcm",
        "pydicom__ExplVR_BigEnd.dcm",
        "pydicom__examples_palette.dcm",
        "pydicom__examples_ybr_color.dcm",
        "usgplate__ultrasound.dcm",
    },
}
PYDICOM_CANNOT_TELL = {
    # No preamble, but DICM stands at its 128th byte by chance: read from there, nothing in it makes sense.
    "dcm4che__no_preamble_dicm_in_data": "unreadable_header",
    "fo-dicom__GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "unreadable_header",
    "orthanc-tests__2026-05-06-Deeply-Nested-Sequence.dcm": "over_limits",
    # pydicom drops the whole data set because its pixel data break off; the header states magnetic resonance.
    "pydicom-data__emri_small_jpeg_2k_lossless_too_short.dcm": "not_ultrasound",
}
CONFLICTING = {  # four versions of one file under one SOPInstanceUID; two of them have other pixels
    "pydicom-data__OBXXXX1A.dcm",
    "pydicom-data__OBXXXX1A_expb.dcm",
    "pydicom-data__OBXXXX1A_rle_2frame.dcm",
    "pydicom__examples_palette.dcm",
}


def folder(name):
    return WHEEL if name == "wheel" else shared_data() / "dicom_samples"


def files(name):
    return [path for path in sorted(folder(name).rglob("*")) if path.is_file() and "__pycache__" not in path.parts]


def by_pydicom(path):
    """What pydicom makes of the file: its data set, and its pixels or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path, force=True)
        try:
            return dataset, dataset.pixel_array
        except Exception:
            return dataset, None


def expected(path):
    """The reason why the file is no record, or `record`."""
    if path.name in PYDICOM_CANNOT_TELL:
        return PYDICOM_CANNOT_TELL[path.name]
    dataset, _ = by_pydicom(path)
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        known = dataset.preamble or any(keyword in dataset for keyword in ("SOPClassUID", "Modality", "PatientID"))
        return "not_an_image" if known else "not_dicom"
    return "record" if dataset.get("Modality") == "US" else "not_ultrasound"


def found(path):
    with path.open("rb") as file:
        try:
            return read_header(file, path.stat().st_size, ("US",))
        except Rejected as rejected:
            return rejected.rejection.reason.value


@pytest.mark.parametrize("name", ["wheel", "samples"])
def test_each_real_file_is_a_record_or_has_the_right_reason(name):
    outcomes = {path: found(path) for path in files(name)}
    reasons = {path: "record" if isinstance(outcome, Header) else outcome for path, outcome in outcomes.items()}
    assert reasons == {path: expected(path) for path in reasons}
    assert {path.name for path, reason in reasons.items() if reason == "record"} == ULTRASOUND[name]
    assert len(reasons) >= {"wheel": 188, "samples": 48}[name]
    assert all(outcome.unreadable_fields == () for outcome in outcomes.values() if isinstance(outcome, Header))


def grey_by_pydicom(dataset, pixels):
    """Frames as float grey: what pydicom decodes to grey or RGB, weighed by ITU-R BT.601."""
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset).astype(float)
        pixels = pixels / 257 if pixels.max() > 255 else pixels
    colour = pixels.shape[-1] == 3
    cine = pixels.ndim == (4 if colour else 3)
    frames = (pixels if cine else pixels[None]).astype(float)
    grey = frames @ (0.299, 0.587, 0.114) if colour else frames * 255 / (2**dataset.BitsStored - 1)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


@pytest.mark.parametrize("name", ["wheel", "samples"])
def test_each_frame_of_real_ultrasound_has_the_grey_that_pydicom_s_pixels_have(name):
    images = [path for path in files(name) if path.name in ULTRASOUND[name]]
    assert {path.name for path in images} == ULTRASOUND[name]
    for path in images:
        frames = grey_by_pydicom(*by_pydicom(path))
        file = PixelFile.open(BytesIO(path.read_bytes()))
        assert file.frames == len(frames), path.name
        for number in {0, file.frames // 2, file.frames - 1}:
            grey = file.frame(number).grey
            off = np.abs(grey - frames[number])  # by less than 3 on average: decoders and ways through RGB differ
            assert grey.shape == frames[number].shape and off.mean() < 3 and np.median(off) <= 1.5, path.name


def accounted(archive: Path, store: Path):
    """Index and cache of `archive`, and the reason of each rejected file by name."""
    private = store / "private"
    index = index_folder(archive, private, KEY)
    settings = Archive(frames_per_cine=3, b_mode_only=False)
    cache = build_cache(index.records, str(archive), private, KEY, store / "images", SIZE, settings)
    reasons = {Path(locate(private, row["id"])).name: row["reason"] for row in index.rejected.to_pylist()}
    return index, cache, reasons


def test_versions_of_one_instance_with_other_pixels_are_a_conflict_and_the_others_become_images(tmp_path):
    archive = shared_data() / "dicom_samples" / "ultrasound"
    index, cache, reasons = accounted(archive, tmp_path)
    assert reasons == dict.fromkeys(CONFLICTING, "conflicting_duplicate")
    assert index.records.num_rows == 13
    assert cache.frames == cache.images.num_rows + cache.rejected.num_rows == 10 + 3 * 3  # ten stills and three cines
    left_out = {row["id"].partition(":")[0]: row["reason"] for row in cache.rejected.to_pylist()}
    pages = [Path(locate(tmp_path / "private", file)).name for file, why in left_out.items() if why == "report_page"]
    assert pages == ["usgplate__ultrasound.dcm"]  # the word "Ultrasound" on white
    assert set(left_out.values()) <= {"not_b_mode", "report_page"}
    assert cache.images.num_rows >= 15


@pytest.mark.parametrize("name", sorted(CONFLICTING))
def test_each_of_the_conflicting_samples_is_a_record_when_alone(tmp_path, name):
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / name).write_bytes((shared_data() / "dicom_samples" / "ultrasound" / name).read_bytes())
    index, cache, _ = accounted(archive, tmp_path)
    assert index.records.num_rows == 1 and cache.images.num_rows == cache.frames >= 1
    assert load_pixels(cache.folder, cache.images).mean() > 5  # not black: its palette is read in the right byte order


def test_the_files_that_pydicom_ships_are_indexed_like_one_by_one(tmp_path):
    index, cache, reasons = accounted(WHEEL, tmp_path)
    names = {Path(locate(tmp_path / "private", file)).name for file in index.records["file_id"].to_pylist()}
    assert names == ULTRASOUND["wheel"]
    assert cache.frames == cache.images.num_rows + cache.rejected.num_rows == 4 + 3
    assert set(cache.rejected["reason"].to_pylist()) <= {"not_b_mode"}
    assert reasons["CT_small.dcm"] == reasons["MR_small_RLE.dcm"] == reasons["liver_1frame.dcm"] == "not_ultrasound"
    assert reasons["DICOMDIR"] == reasons["test-SR.dcm"] == reasons["rtplan.dcm"] == "not_an_image"
    assert reasons["README.txt"] == reasons["zipMR.gz"] == reasons["hashes.json"] == "not_dicom"


@pytest.mark.slow
def test_the_real_archive_is_4779_records_and_one_unmapped_description(tmp_path):
    archive, private = shared_data() / "real_archive", tmp_path / "private"
    index = index_folder(archive, private, KEY)
    assert (index.files, index.records.num_rows, index.rejected.num_rows) == (4779, 4779, 0)
    cache = build_cache(index.records, str(archive), private, KEY, tmp_path / "images", SIZE, Archive())
    assert (cache.frames, cache.images.num_rows) == (4779, 4778)
    assert cache.rejected["reason"].to_pylist() == ["no_tissue"]  # LUNG/064/00000.dcm is black but for one speck

    settings = Labels()
    groups = read_study_groups(shared_data() / "real_archive_groups.csv", settings.groups)
    labels = weak_labels(index.records, groups, settings)
    unmapped = unmapped_descriptions(index.records, groups).to_pylist()
    assert [(row["study_description"], row["images"]) for row in unmapped] == [("US OB FETAL HEAD", 326)]
    assert sum(labels["curvilinear"].to_pylist()) == 404 + 326 + 1238 - lung_linear(index)
    assert None not in labels["linear"].to_pylist()

    splits = split_patients(read_draws(private, set(index.records["patient"].to_pylist())), None, 0.2)
    pool = pretraining_pool(cache.images, labels, splits, settings)
    assert pool.num_rows == 4778 - 326 and patients_on_both_sides(pool) == []
    assert load_pixels(cache.folder, pool).shape == (4452, 64, 96)


def lung_linear(index) -> int:
    """Lung images that state a linear probe."""
    rows = index.records.to_pylist()
    return sum(
        row["study_description"] == "US LUNG POINT OF CARE" and row["transducer_type"] == "LINEAR" for row in rows
    )
