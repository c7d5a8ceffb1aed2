"""Files that crash decoders, together in one archive: each loses itself and nothing else."""

import zlib
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.listing import locate
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from tests.pipeline.archive.synthetic import KEY, dataset, index_folder, noise, write_dicom

PICTURE = {
    "Rows": 100,
    "Columns": 100,
    "SamplesPerPixel": 3,
    "PlanarConfiguration": 0,
    "PhotometricInterpretation": "YBR_FULL",
    "TransferSyntaxUID": JPEGBaseline8Bit,
}


def aborting_jpeg() -> bytes:
    """A JPEG with three changed bytes that makes GDCM 3.2 abort the process (SIGABRT)."""
    path = Path(pydicom.data.__file__).parent / "test_files" / "SC_rgb_dcmtk_+eb+cy+n2.dcm"
    frame = bytearray(get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1))
    for offset, value in ((20, 116), (1138, 18), (1291, 210)):
        frame[offset] = value
    return bytes(frame)


def deflate_bomb(path: Path) -> None:
    """A file of half a megabyte whose data set inflates to half a gigabyte."""
    write_dicom(path)
    content = path.read_bytes()
    meta = dataset(noise(), TransferSyntaxUID=DeflatedExplicitVRLittleEndian).file_meta
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=True)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = content[content.index(b"\x08\x00\x16\x00UI") :]
        file.write(packer.compress(body))
        for _ in range(512):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())


def lying_rle(path: Path) -> None:
    """RLE whose header states a picture of 65,535 x 65,535 pixels."""
    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    frame = encapsulate([header + b"\x81\x00" * 40])
    write_dicom(path, PixelData=frame, Rows=65535, Columns=65535, TransferSyntaxUID=RLELossless)


def nested(path: Path, depth: int) -> None:
    """Nested sequences before a good image's elements."""
    content = write_dicom(path).read_bytes()
    at = content.index(b"\x08\x00\x60\x00CS")  # Modality
    sequence, item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    ends = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(content[:at] + (sequence + item) * depth + ends * depth + content[at:])


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """Reasons by file name, cache and index of an archive with four good images among hostile files."""
    folder = tmp_path_factory.mktemp("hostile")
    archive = folder / "archive"
    for number in range(4):
        write_dicom(archive / f"good{number}", noise(64, 96, seed=number), PatientID=f"P{number}")
    write_dicom(archive / "aborts", PixelData=encapsulate([aborting_jpeg()]), **PICTURE)
    deflate_bomb(archive / "bomb")
    lying_rle(archive / "lies")
    nested(archive / "nested", 20_000)
    (archive / "random").write_bytes(noise(300, 300).tobytes())
    (archive / "random after DICM").write_bytes(bytes(128) + b"DICM" + noise(300, 300).tobytes())
    index = index_folder(archive, folder / "private")
    cache = build_cache(
        index.records, str(archive), folder / "private", KEY, folder / "images", Images(height=32, width=64), Archive()
    )
    rejected = [*index.rejected.to_pylist(), *cache.rejected.to_pylist()]
    reasons = {Path(locate(folder / "private", row["id"])).name: row["reason"] for row in rejected}
    return reasons, cache, index


@pytest.mark.integration
def test_every_good_image_is_there_and_no_hostile_one(ingested):
    reasons, cache, index = ingested
    assert cache.images.num_rows == 4 and index.files == 10 == 4 + len(reasons)


def test_a_stream_that_crashes_the_decoder_loses_its_own_frame(ingested):
    assert ingested[0]["aborts"] in {"crashed", "undecodable"}  # another build of the decoder may raise instead


@pytest.mark.parametrize("name", ["bomb", "nested"])
def test_unbounded_memory_is_over_the_limits(ingested, name):
    assert ingested[0][name] == "over_limits"


def test_a_header_with_enormous_sizes_is_rejected(ingested):
    assert ingested[0]["lies"] in {"unsupported_pixels", "undecodable"}


def test_noise_is_no_dicom(ingested):
    assert ingested[0]["random"] == "not_dicom"
    assert ingested[0]["random after DICM"] in {"unreadable_header", "not_an_image", "not_dicom"}


def test_details_are_one_line_without_values(ingested):
    _, cache, index = ingested
    details = [*index.rejected["detail"].to_pylist(), *cache.rejected["detail"].to_pylist()]
    assert all(detail and "\n" not in detail and "P1" not in detail and "/" not in detail for detail in details)
