"""A worklist's page of pictures: other patients, nothing outside the crop, and no work for an unchanged worklist."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.archive import worklist_page
from pipeline.archive.cache_builder import build_cache
from pipeline.archive.crop_sheet import FrameSource
from pipeline.archive.worklist_page import PICTURES, Worklist, WorklistRow, write_worklist_page
from pipeline.pages.picture_page import Intro
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from tests.pipeline.archive.synthetic import KEY, index_folder, write_dicom

LIVER, WHOLE = "US LIVER MRS O'HARA <b>", "US KEPT WHOLE"


def frame(seed: int, level: int) -> np.ndarray:
    """480 x 640: text of the greatest brightness outside the box, and noise around `level` within it."""
    grey = np.zeros((480, 640), np.uint8)
    grey[4:20, 4:300:3] = 255
    tissue = np.random.default_rng(seed).normal(level, 12, (380, 400))
    grey[60:440, 120:520] = np.clip(tissue, 1, 200).astype(np.uint8)
    return grey


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FrameSource, pa.Table]:
    """Twelve patients with a liver, the first of them with three images, and one image kept whole that states text."""
    folder = tmp_path_factory.mktemp("clinic")
    for patient in range(12):
        for number in range(3 if patient == 0 else 1):
            tags = {"PatientID": f"P{patient}", "StudyDescription": LIVER, "BurnedInAnnotation": "YES"}
            pixels = frame(100 * patient + number, level=20 + 10 * patient)
            write_dicom(folder / "archive" / f"{patient}-{number}", pixels, **tags)
    whole = np.random.default_rng(1).integers(1, 255, (240, 320), dtype=np.uint8)
    tags = {"PatientID": "W", "StudyDescription": WHOLE, "BurnedInAnnotation": "YES"}
    write_dicom(folder / "archive" / "whole", whole, **tags)
    archive, private = str(folder / "archive"), folder / "private"
    index = index_folder(folder / "archive", private)
    made = build_cache(index.records, archive, private, KEY, folder / "images", Images(height=32, width=64), Archive())
    assert sorted(made.images["cropped_by"].to_pylist()) == ["detected"] * 14 + ["whole"]
    return folder, FrameSource(index.records, archive, private, 1), made.images


def worklist(source: FrameSource, *names: str) -> Worklist[str]:
    instances = source.records["sop_instance"].to_pylist()
    name_of = dict(zip(instances, source.records["study_description"].to_pylist(), strict=True))
    rows = [WorklistRow(name, name, [("images", "14")]) for name in names]
    return Worklist("unmapped", Intro(["Groups to choose from: liver."], ["Copy it."]), rows, name_of)


def pictures_of(page: Path) -> list[np.ndarray]:
    urls = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.read_text(encoding="utf-8"))
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))) for url in urls]


def test_a_row_has_nine_pictures_of_other_patients_and_nothing_outside_the_crop(clinic, tmp_path: Path) -> None:
    _, source, images = clinic
    page = tmp_path / "unmapped.html"
    assert write_worklist_page(page, worklist(source, LIVER), images, source)
    pictures = pictures_of(page)
    assert len(pictures) == PICTURES == 9 and all(picture.shape[0] >= 240 for picture in pictures)
    levels = sorted(round((float(np.median(picture)) - 20) / 10) for picture in pictures)
    assert len(set(levels)) == 9 and set(levels) <= set(range(12))  # a patient has one level
    assert max(int(picture.max()) for picture in pictures) < 230  # text is 255, tissue at most 200
    assert all(abs(picture.shape[1] / picture.shape[0] - 400 / 380) < 0.1 for picture in pictures)


def test_an_image_kept_whole_that_states_text_is_not_shown(clinic, tmp_path: Path) -> None:
    _, source, images = clinic
    page = tmp_path / "unmapped.html"
    write_worklist_page(page, worklist(source, WHOLE), images, source)
    assert WHOLE in page.read_text(encoding="utf-8") and pictures_of(page) == []


def test_an_unchanged_worklist_decodes_nothing_and_a_changed_one_does(clinic, tmp_path: Path) -> None:
    _, source, images = clinic
    page = tmp_path / "unmapped.html"
    assert write_worklist_page(page, worklist(source, LIVER, WHOLE), images, source)
    written = page.read_bytes()
    assert not write_worklist_page(page, worklist(source, LIVER, WHOLE), images, source)
    assert page.read_bytes() == written
    assert write_worklist_page(page, worklist(source, WHOLE, LIVER), images, source)


@pytest.mark.integration
def test_a_file_with_other_pixels_than_those_indexed_is_left_out_and_tried_again(clinic, tmp_path: Path) -> None:
    folder, source, images = clinic
    page, file = tmp_path / "unmapped.html", folder / "archive" / "whole"
    instance = source.records.filter(pa.compute.equal(source.records["study_description"], WHOLE))["sop_instance"]
    alone = images.filter(pa.compute.equal(images["sop_instance"], instance[0]))
    index = source.records.schema.get_field_index("burned_in")
    unstated = source.records.set_column(index, "burned_in", pa.array([False] * source.records.num_rows))
    legible = FrameSource(unstated, source.archive, source.private, 1)
    original = file.read_bytes()
    try:
        write_dicom(file, frame(1, 90), PatientID="X", StudyDescription=WHOLE)
        assert write_worklist_page(page, worklist(source, WHOLE), alone, legible) and pictures_of(page) == []
    finally:
        file.write_bytes(original)
    assert write_worklist_page(page, worklist(source, WHOLE), alone, legible) and len(pictures_of(page)) == 1


@pytest.mark.integration
def test_rows_and_bytes_are_limited_and_the_rest_is_counted(clinic, tmp_path: Path, monkeypatch) -> None:
    _, source, images = clinic
    monkeypatch.setattr(worklist_page, "MAX_ROWS", 1)
    monkeypatch.setattr(worklist_page, "MAX_BYTES", 60_000)
    page = tmp_path / "unmapped.html"
    write_worklist_page(page, worklist(source, LIVER, WHOLE), images, source)
    text = page.read_text(encoding="utf-8")
    assert "Rows on this page: 1 of 2" in text and "1 more" in text and f">{WHOLE}<" not in text
    assert 0 < len(pictures_of(page)) < 9 and page.stat().st_size < 100_000
