"""Suggestions of the worklist of probes, from cached images and from headers in the archive."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from assets.probes import _examples, _suggestions
from pipeline.archive.cache_builder import build_cache
from pipeline.labels.probe_tables import Probes
from pipeline.labels.probe_worklist import ProbeName, unknown_names
from pipeline.recipe import Recipe
from pipeline.store import Store
from tests.pipeline.archive.synthetic import KEY, index_folder, write_dicom

HEIGHT, WIDTH = 192, 288


def trapezoid(seed):
    """Texture that is 190 pixels wide above and 280 below."""
    row, column = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    inside = np.abs(column - WIDTH / 2) < 95 + 45 * row / HEIGHT
    return np.where(inside, np.random.default_rng(seed).integers(60, 180, inside.shape), 0).astype(np.uint8)


def tissue(reference_row):
    """A tissue region that is all of the frame but one row."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = WIDTH - 1, HEIGHT - 2
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.ReferencePixelY0 = reference_row
    return region


@pytest.mark.integration
def test_equal_pictures_of_two_probes_are_told_apart_by_the_reference_pixel(tmp_path):
    """A straight upper edge narrower than the area: a linear probe's fan, or a sector whose face is above."""
    archive, store, recipe = tmp_path / "archive", Store(tmp_path / "store").open(), Recipe(name="tiny")
    faces = {"Q1": [tissue(0)], "Q2": [tissue(-40)], "Q3": []}
    for number, (name, regions) in enumerate(faces.items()):
        tags = {"Manufacturer": "GE Healthcare", "TransducerData": name, "SequenceOfUltrasoundRegions": regions}
        for patient in ("a", "b"):
            write_dicom(archive / f"{patient}{name}", trapezoid(number), PatientID=f"{patient}{name}", **tags)
    write_dicom(archive / "unnamed", trapezoid(9), PatientID="c", Manufacturer="GE Healthcare")
    index = index_folder(archive, store.private).records
    cache = build_cache(index, str(archive), store.private, KEY, store.images, recipe.images, recipe.archive)
    examples = _examples(index, unknown_names(index, recipe.labels, Probes()), cache.images)
    assert {name: rows.num_rows for name, rows in examples.items()} == {
        **{ProbeName("GE", name): 2 for name in faces},
        ProbeName("GE", ""): 1,
    }
    found = _suggestions(store, recipe, str(archive), index, examples)
    assert {probe.name: one.shape for probe, one in found.items()} == {
        "Q1": "linear",
        "Q2": "curvilinear",
        "Q3": None,
        "": None,
    }
    assert _suggestions(store, recipe, str(archive), index, {}) == {}
