"""Sentinels planted where a clinic has names stay in the private folder, after a run by the command."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from pipeline.images.cache import cached_images, load_pixels
from tests.conftest import TINY_RECIPE, run_job, table_path
from tests.pipeline.archive.synthetic import write_dicom

pytestmark = pytest.mark.integration

WORDS = {
    "PatientName": "SENTINELNAME^MÄRTA",
    "InstitutionName": "SENTINELCLINIC",
    "AccessionNumber": "SENTINELACC",
    "OperatorsName": "SENTINELOPERATOR",
}
DESCRIPTIONS = [f"SENTINELDESCRIPTION{number}" for number in range(5)]  # of two patients each
BRIGHTEST = 200  # of the tissue: whatever is brighter in the cache was written over it by the scanner
HEIGHT, WIDTH = 240, 320


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store after the job `ingest` over an archive full of sentinels."""
    folder = tmp_path_factory.mktemp("sentinels")
    for number in range(10):
        write_image(folder, number)
    (folder / "archive" / "SENTINELFOLDER" / "SENTINELNOTE.txt").write_text("SENTINELTEXT " * 30)
    recipe = folder / "recipe.yaml"
    recipe.write_text(TINY_RECIPE.replace("phantom/downstream", "nothing"), encoding="utf-8")
    mapping = folder / "groups.csv"
    rows = [f"{description},thyroid" for description in DESCRIPTIONS]
    mapping.write_text("\n".join(["study_description,groups", *rows]), encoding="utf-8")
    named = {"ARCHIVE": folder / "archive", "RECIPE": recipe, "STUDY_GROUPS": mapping}
    done = run_job("ingest", folder / "store", **{f"SONOTAG_{name}": str(path) for name, path in named.items()})
    (folder / "store" / "console.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "store"


def write_image(folder: Path, number: int) -> None:
    """A still with a name burned in above its tissue; the odd ones have no regions."""
    rng = np.random.default_rng(number)
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    grey[60:230, 20:300] = rng.integers(20, BRIGHTEST, (170, 280), dtype=np.uint8)
    picture = Image.fromarray(grey)
    ImageDraw.Draw(picture).text((20, 10), f"SENTINELPIXELS {number}", fill=255, font_size=24)
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 20, 60
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 299, 229
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.02
    identity = WORDS | {"PatientID": f"SENTINELID{number}", "OtherPatientIDs": f"SENTINELOTHER{number}"}
    write_dicom(
        folder / "archive" / "SENTINELFOLDER" / f"SENTINELFILE{number}",
        np.asarray(picture),
        SpecificCharacterSet="ISO_IR 192",
        TransducerType="LINEAR",
        StudyDescription=DESCRIPTIONS[number % len(DESCRIPTIONS)],
        StudyInstanceUID=f"1.2.826.0.7777777.{number}",
        SequenceOfUltrasoundRegions=[region] if number % 2 == 0 else None,
        **identity,
    )


def texts(store: Path) -> Iterator[tuple[str, str]]:
    """Every file outside the private folder, as text: tables and databases by their cells, the rest as bytes."""
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        name = path.relative_to(store).as_posix()
        if name.startswith("private/"):
            continue
        yield name, name
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield name, str(table.drop_columns([c for c in table.column_names if c == "pixels"]).to_pylist())
        elif path.read_bytes()[:15] == b"SQLite format 3":
            yield name, "\n".join(sqlite3.connect(f"file:{path}?mode=ro", uri=True).iterdump())
        else:
            yield name, path.read_bytes().decode("utf-8", "replace")


def test_no_sentinel_leaves_the_private_folder(store: Path) -> None:
    found = {
        name for name, text in texts(store) for word in ("SENTINEL", "MÄRTA", "M\\u00c4RTA", "7777777") if word in text
    }
    assert found == set()
    assert len(list(texts(store))) > 40  # databases of Dagster and MLflow, tables, the log


def test_the_private_folder_is_where_they_are_and_nobody_else_reads_it(store: Path) -> None:
    rows = pq.read_table(store / "private" / "scan.parquet").to_pylist()
    assert sum(b"SENTINELFOLDER/" in row["path"] for row in rows) == 11
    stated = [json.loads(row["descriptions"]) for row in rows if not row["reason"]]
    assert {descriptions["StudyDescription"] for descriptions in stated} == set(DESCRIPTIONS)
    assert pq.read_table(table_path(store, "pretraining_pool")).num_rows == 10  # rare, and labelled all the same
    assert (store / "private").stat().st_mode & 0o077 == 0
    assert (store / "private" / "pseudonym.key").stat().st_mode & 0o077 == 0


def test_what_was_burned_in_beside_the_tissue_is_not_in_the_cache(store: Path) -> None:
    (folder,) = (path.parent for path in (store / "images").glob("*/cache.json"))
    rows = cached_images(folder)
    assert sorted(rows["cropped_by"].to_pylist()) == ["detected"] * 5 + ["regions"] * 5
    pixels = load_pixels(folder, rows)
    assert pixels.shape[0] == 10 and pixels.max() <= BRIGHTEST
    assert pixels[:, 4:-4, 4:-4].min() > 0  # and the tissue is all there
    spacing = {row["cropped_by"]: (row["row_spacing_mm"], row["column_spacing_mm"]) for row in rows.to_pylist()}
    assert spacing["regions"] == pytest.approx((0.2 * 170 / 32, 0.2 * 280 / 64))
    assert spacing["detected"] == (None, None)
