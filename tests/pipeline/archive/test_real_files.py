"""Real files, good and bad: each is accounted for, with the right reason."""

from pathlib import Path

import pydicom.data
import pytest

from pipeline.archive.images import build_cache
from pipeline.archive.listing import locate
from pipeline.archive.scan import index_archive
from pipeline.cohort.pool import leaking_patients, pretraining_pool
from pipeline.cohort.splits import read_draws, split_patients
from pipeline.images.cache import load_pixels
from pipeline.labels.study_groups import read_study_groups
from pipeline.labels.weak_labels import unmapped_descriptions, weak_labels
from pipeline.recipe import Archive, Images, Labels
from tests.pipeline.archive.real import shared_data
from tests.pipeline.archive.synthetic import KEY

SIZE = Images(height=64, width=96)

CONFLICTING = {  # four versions of one file under one SOPInstanceUID, of which two have other pixels
    "pydicom-data__OBXXXX1A.dcm",
    "pydicom-data__OBXXXX1A_expb.dcm",
    "pydicom-data__OBXXXX1A_rle_2frame.dcm",
    "pydicom__examples_palette.dcm",
}
MALFORMED = {
    "cornerstoneWADOImageLoader__no-pixel-data.dcm": "not_an_image",
    # No preamble, but DICM stands at its 128th byte by chance: read from there, nothing in it makes sense.
    "dcm4che__no_preamble_dicm_in_data": "unreadable_header",
    "fo-dicom__GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "unreadable_header",
    "orthanc-tests__2026-05-06-Deeply-Nested-Sequence.dcm": "unreadable_header",
    "pydicom__ExplVR_BigEndNoMeta.dcm": "not_an_image",
    "pydicom__no_meta_group_length.dcm": "not_an_image",
    "pydicom__reportsi_with_empty_number_tags.dcm": "not_an_image",
    "pydicom__rtstruct.dcm": "not_an_image",
}
"""All others in the folder are images, of another modality."""

PYDICOM_ULTRASOUND = {
    "ExplVR_BigEnd.dcm",
    "examples_jpeg2k.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
}


def accounted(archive: Path, store: Path):
    """Index and cache of `archive`, and the reason of each rejected file by name."""
    private = store / "private"
    index = index_archive(archive, private, KEY)
    cache = build_cache(index.records, archive, private, store / "images", SIZE, Archive(frames_per_cine=3))
    reasons = {locate(private, row["id"]).name: row["reason"] for row in index.rejected.to_pylist()}
    return index, cache, reasons


def test_real_ultrasound_samples_are_all_records_with_images(tmp_path):
    archive = shared_data() / "dicom_samples" / "ultrasound"
    index, cache, reasons = accounted(archive, tmp_path)
    assert reasons == dict.fromkeys(CONFLICTING, "conflicting_duplicate")
    assert index.records.num_rows == len(list(archive.iterdir())) - len(CONFLICTING) == 13
    assert cache.rejected.num_rows == 0
    assert cache.frames == cache.images.num_rows == 10 + 3 * 3  # ten stills and three cines


@pytest.mark.parametrize("name", sorted(CONFLICTING))
def test_each_of_the_conflicting_samples_is_a_record_when_alone(tmp_path, name):
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / name).write_bytes((shared_data() / "dicom_samples" / "ultrasound" / name).read_bytes())
    index, cache, _ = accounted(archive, tmp_path)
    assert index.records.num_rows == 1 and cache.images.num_rows == cache.frames >= 1
    assert load_pixels(cache.folder, cache.images).mean() > 5  # not black: its palette is read in the right byte order


def test_real_malformed_samples_are_all_rejected_for_what_they_are(tmp_path):
    archive = shared_data() / "dicom_samples"
    _, _, reasons = accounted(archive, tmp_path)
    expected = {path.name: MALFORMED.get(path.name, "not_ultrasound") for path in (archive / "malformed").iterdir()}
    assert {name: reason for name, reason in reasons.items() if name not in CONFLICTING} == expected
    assert len(expected) == 31


def test_the_files_that_pydicom_ships_are_all_accounted_for(tmp_path):
    archive = Path(pydicom.data.__file__).parent
    index, cache, reasons = accounted(archive, tmp_path)
    names = {locate(tmp_path / "private", file).name for file in index.records["file_id"].to_pylist()}
    assert names == PYDICOM_ULTRASOUND
    assert cache.rejected.num_rows == 0 and cache.images.num_rows == 4 + 3
    assert reasons["CT_small.dcm"] == reasons["MR_small_RLE.dcm"] == reasons["liver_1frame.dcm"] == "not_ultrasound"
    assert reasons["DICOMDIR"] == reasons["test-SR.dcm"] == reasons["rtplan.dcm"] == "not_an_image"
    assert reasons["README.txt"] == reasons["zipMR.gz"] == reasons["hashes.json"] == "not_dicom"
    assert "unreadable_header" not in reasons.values()


@pytest.mark.slow
def test_the_real_archive_is_4779_records_and_one_unmapped_description(tmp_path):
    archive, private = shared_data() / "real_archive", tmp_path / "private"
    index = index_archive(archive, private, KEY)
    assert (index.files, index.records.num_rows, index.rejected.num_rows) == (4779, 4779, 0)
    cache = build_cache(index.records, archive, private, tmp_path / "images", SIZE, Archive())
    assert (cache.frames, cache.images.num_rows, cache.rejected.num_rows) == (4779, 4779, 0)

    settings = Labels()
    groups = read_study_groups(shared_data() / "real_archive_groups.csv", settings.groups)
    labels = weak_labels(index.records, groups, settings)
    unmapped = unmapped_descriptions(index.records, groups).to_pylist()
    assert [(row["study_description"], row["images"]) for row in unmapped] == [("US OB FETAL HEAD", 326)]
    assert sum(labels["curvilinear"].to_pylist()) == 404 + 326 + 1238 - lung_linear(index)
    assert None not in labels["linear"].to_pylist()

    splits = split_patients(read_draws(private, set(index.records["patient"].to_pylist())), None, 0.2)
    pool = pretraining_pool(cache.images, labels, splits, settings)
    assert pool.num_rows == 4779 - 326 and leaking_patients(pool) == []
    assert load_pixels(cache.folder, pool).shape == (4453, 64, 96)


def lung_linear(index) -> int:
    """Lung images that state a linear probe."""
    rows = index.records.to_pylist()
    return sum(
        row["study_description"] == "US LUNG POINT OF CARE" and row["transducer_type"] == "LINEAR" for row in rows
    )
