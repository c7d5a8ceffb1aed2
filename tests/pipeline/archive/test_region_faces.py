"""Where headers have the probe's face, read from an archive."""

import pyarrow as pa
import pytest
from pydicom.dataset import Dataset

from pipeline.archive.region_faces import read_face, stated_faces
from pipeline.dicom.face import face_position
from pipeline.dicom.pixel_file import PixelFile
from tests.pipeline.archive.synthetic import write_dicom
from tests.pipeline.archive.zipped import zip_of


def tissue(**fields):
    """A tissue region of 100 rows, from row 20."""
    item = Dataset()
    defaults = {"RegionSpatialFormat": 1, "RegionDataType": 1, "RegionFlags": 0}
    box = {"RegionLocationMinX0": 4, "RegionLocationMaxX1": 90, "RegionLocationMinY0": 20, "RegionLocationMaxY1": 119}
    units = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    for name, value in {**defaults, **box, **units, **fields}.items():
        setattr(item, name, value)
    return item


@pytest.mark.parametrize(
    ("regions", "face"),
    [
        ([tissue(ReferencePixelY0=-20)], "above"),
        ([tissue(ReferencePixelY0=-4)], "above"),
        ([tissue(ReferencePixelY0=-3)], "edge"),
        ([tissue(ReferencePixelY0=0)], "edge"),
        ([tissue(ReferencePixelY0=3)], "edge"),
        ([tissue(ReferencePixelY0=8)], "below"),
        ([tissue()], None),
        ([], None),
        ([tissue(RegionSpatialFormat=3, RegionDataType=3, ReferencePixelY0=-20)], None),  # a spectrum
        ([tissue(RegionDataType=10, ReferencePixelY0=-20), tissue(ReferencePixelY0=8)], "below"),  # an ECG first
        ([tissue(), tissue(ReferencePixelY0=8)], "below"),
    ],
)
def test_the_first_tissue_region_with_a_reference_pixel_states_where_the_face_is(tmp_path, regions, face):
    with write_dicom(tmp_path / "x", SequenceOfUltrasoundRegions=regions).open("rb") as file:
        assert face_position(PixelFile.open(file).regions) == face


def test_faces_are_read_from_files_and_zips_and_a_lost_file_is_left_out(tmp_path):
    archive, rows = tmp_path / "archive", {"a": 8, "b": 0, "c": None}
    for name, row in rows.items():
        regions = [tissue() if row is None else tissue(ReferencePixelY0=row)]
        write_dicom(archive / name, SequenceOfUltrasoundRegions=regions)
    (archive / "z.zip").write_bytes(zip_of([("b", (archive / "b").read_bytes())]))
    paths = [b"c", b"z.zip\0b", b"lost", b"a"]
    known = pa.table({"file_id": ["f0", "f1", "f2", "f3"], "path": paths})
    records = pa.table({"file_id": ["f3", "f2", "f1", "f0"], "sop_instance": ["i3", "i2", "i1", "i0"]})
    assert stated_faces(records, known, str(archive)) == {"i3": "below", "i1": "edge"}
    assert stated_faces(records.slice(0, 0), known, str(archive)) == {}


def test_an_archive_that_is_gone_states_nothing(tmp_path):
    assert read_face(str(tmp_path / "gone"), b"a") is None
