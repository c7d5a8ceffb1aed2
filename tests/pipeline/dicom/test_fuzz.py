"""Random mutations of valid files, through index and cache: the ledgers balance, and good files are kept."""

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from pydicom.valuerep import VR

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.scan import index_archive
from pipeline.dicom.grey import resize_grey
from pipeline.images.cache import load_pixels
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from tests.pipeline.archive.synthetic import KEY, dataset, noise, write_dicom

Mutation = Callable[[random.Random, bytes], bytes]
GOOD = 3
INSTANCE = "1.2.999.100000000"  # replaced by a number of the same length in every file, but for what is deflated

# Elements that index and cache read, with their groups' neighbours, and the delimiters of sequences and items.
TAGS = [
    *((0x0008, element) for element in (0x05, 0x08, 0x16, 0x18, 0x60, 0x70, 0x1030, 0x1090)),
    *((0x0010, element) for element in (0x10, 0x20, 0x21, 0x1002)),
    *((0x0018, element) for element in (0x15, 0x1030, 0x5010, 0x6011, 0x6031)),
    *((0x0020, element) for element in (0x0D, 0x0E, 0x13)),
    *((0x0028, e) for e in (2, 4, 6, 8, 0x10, 0x11, 0x30, 0x100, 0x101, 0x103, 0x1050, 0x1051, 0x1052, 0x1101, 0x1201)),
    *((0x7FE0, element) for element in (0x01, 0x02, 0x08, 0x09, 0x10)),
    *((0xFFFE, element) for element in (0xE000, 0xE00D, 0xE0DD)),
    (0x0002, 0x0010),
    (0x0002, 0x0002),
    (0x0009, 0x1001),
]
VALUES = [
    b"",
    b"\0",
    b"-1",
    b"99999999999999999999",
    b"9" * 300,
    b"1e308",
    b"NaN",
    b"inf\\-inf",
    b"\xed\xa0\x80 \xff\xfe",
    b"\\\\\\",
    b"ISO 2022 IR 87\\ISO_IR 192\\nonsense",
    bytes(range(256)),
    b"\xff" * 64,
    b"\xff\xff\xff\x7f",
    b"YBR_FULL_422",
    b"PALETTE COLOR",
]


def base_files() -> list[bytes]:
    """Valid files with the usual encodings of pixels."""
    rgb = np.repeat(noise(24, 32)[..., None], 3, axis=2)
    jpeg, jpeg_2000 = io.BytesIO(), io.BytesIO()
    Image.fromarray(rgb).save(jpeg, "JPEG")
    Image.fromarray(noise(24, 32)).save(jpeg_2000, "JPEG2000")
    region = Dataset()
    region.RegionDataType, region.RegionSpatialFormat, region.PhysicalDeltaX = 1, 1, 0.1
    made = [
        dataset(noise(24, 32), SequenceOfUltrasoundRegions=[region]),
        dataset(noise(24, 32), TransferSyntaxUID=ImplicitVRLittleEndian),
        dataset(noise(24, 32), TransferSyntaxUID=ExplicitVRBigEndian),
        dataset(noise(24, 32), TransferSyntaxUID=DeflatedExplicitVRLittleEndian),
        dataset(np.stack([noise(24, 32, seed=n) for n in range(4)]), RescaleSlope=2, RescaleIntercept=0),
        dataset(rgb, PixelData=encapsulate([jpeg.getvalue()]), TransferSyntaxUID=JPEGBaseline8Bit),
        dataset(noise(24, 32), PixelData=encapsulate([jpeg_2000.getvalue()]), TransferSyntaxUID=JPEG2000Lossless),
    ]
    run_lengths = dataset(noise(24, 32))
    run_lengths.compress(RLELossless)
    for one in (*made, run_lengths):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = INSTANCE
    return [_written(one) for one in (*made, run_lengths)]


def _written(one: Dataset) -> bytes:
    file = io.BytesIO()
    one.save_as(file, enforce_file_format=True)
    return file.getvalue()


def flip(rng: random.Random, data: bytes) -> bytes:
    """Some changed bytes, most of them in the header."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        end = len(changed) if rng.random() < 0.3 else min(len(changed), 1200)
        changed[rng.randrange(end)] = rng.randrange(256)
    return bytes(changed)


def element_of(rng: random.Random, group: int, element: int) -> bytes:
    """An element of any VR, with any bytes, mostly of the length that it states."""
    value = rng.choice(VALUES) if rng.random() < 0.7 else rng.randbytes(rng.randrange(80))
    length = len(value) if rng.random() < 0.8 else rng.choice((0, 1, 0xFFFF, 2**31, 0xFFFFFFFF, 0xFFFFFFFE))
    vr = rng.choice([vr.value.encode()[:2] for vr in VR] + [b"??", b"\0\0"])
    long = vr in {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"UC", b"UR", b"SV", b"UV"}
    head = group.to_bytes(2, "little") + element.to_bytes(2, "little") + vr
    head += b"\0\0" + length.to_bytes(4, "little") if long else (length & 0xFFFF).to_bytes(2, "little")
    return head + value


def replace(rng: random.Random, data: bytes) -> bytes:
    """A short element replaced by another one of the same tag."""
    group, element = rng.choice(TAGS)
    at = data.find(group.to_bytes(2, "little") + element.to_bytes(2, "little"), 132)
    if at < 0 or not data[at + 4 : at + 6].isalpha():
        return insert(rng, data)
    return (
        data[:at] + element_of(rng, group, element) + data[at + 8 + int.from_bytes(data[at + 6 : at + 8], "little") :]
    )


def insert(rng: random.Random, data: bytes) -> bytes:
    """An additional element, at the start of another one or anywhere."""
    group, element = rng.choice(TAGS) if rng.random() < 0.9 else (rng.randrange(2**16), rng.randrange(2**16))
    at = data.find(rng.choice((b"\x08\x00\x16\x00", b"\x28\x00\x10\x00", b"\x10\x00\x20\x00", b"\xe0\x7f\x10\x00")))
    at = at if at >= 0 and rng.random() < 0.9 else rng.randrange(len(data))
    return data[:at] + element_of(rng, group, element) + data[at:]


def nest(rng: random.Random, data: bytes) -> bytes:
    """Sequences within sequences, some of them not closed."""
    depth = rng.choice((1, 3, 40, 900))
    sequence, item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    ends = (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * rng.choice((depth, depth, depth - 1, 0))
    at = max(data.find(b"\x08\x00\x60\x00"), 0)
    return data[:at] + (sequence + item) * depth + ends + data[at:]


def cut(rng: random.Random, data: bytes) -> bytes:
    """The file without its end, with a part repeated, or with a part removed."""
    start, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return rng.choice((data[:end], data[:end] + data[start:], data[:start] + data[end:]))


def relabel(rng: random.Random, data: bytes) -> bytes:
    """Another transfer syntax over the same pixels; both UIDs padded to one length, so that the file stays whole."""
    at = data.find(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    fitting = [syntax for syntax in AllTransferSyntaxes if len(syntax) <= length] or [""]
    return data[: at + 8] + rng.choice(fitting).encode().ljust(length, b"\0") + data[at + 8 + length :]


def zipped(rng: random.Random, data: bytes) -> bytes:
    """A zip of the file, possibly damaged."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as opened:
        opened.writestr("a/member", data)
        opened.writestr("\udcff".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), flip(rng, data))
    return flip(rng, file.getvalue()) if rng.random() < 0.7 else file.getvalue()


MUTATIONS: tuple[Mutation, ...] = (*(flip, insert, replace, replace, cut, relabel) * 4, nest, nest, zipped)


def mutated(seed: int, count: int) -> Iterator[bytes]:
    rng, files = random.Random(seed), base_files()
    for number in range(count):
        data = rng.choice(files).replace(INSTANCE.encode(), b"1.2.999.%d" % (100_000_001 + number))
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = rng.choice(MUTATIONS)(rng, data) or b"\0"
        yield data


def check(folder: Path, seed: int, count: int) -> None:
    archive = folder / "archive"
    good = [write_dicom(archive / f"good{n}", noise(40, 60, seed=n), PatientID=f"G{n}") for n in range(GOOD)]
    for number, data in enumerate(mutated(seed, count)):
        (archive / f"{number:05d}").write_bytes(data)
    index = index_archive(str(archive), folder / "private", KEY, Archive())
    assert index.files == index.records.num_rows + index.rejected.num_rows >= count + len(good)
    settings = Archive(frames_per_cine=2)
    cache = build_cache(
        index.records, str(archive), folder / "private", KEY, folder / "images", Images(height=32, width=32), settings
    )
    assert cache.frames == cache.images.num_rows + cache.rejected.num_rows
    reasons = {*index.rejected["reason"].to_pylist(), *cache.rejected["reason"].to_pylist()}
    assert cache.images.num_rows > count / 10 and len(reasons) >= 5  # the mutations reach the pixels, too
    details = index.rejected["detail"].to_pylist() + cache.rejected["detail"].to_pylist()
    assert all(detail.isprintable() and "/" not in detail for detail in details)
    expected = {resize_grey(noise(40, 60, seed=n), 32, 32).tobytes() for n in range(GOOD)}
    assert expected <= {image.tobytes() for image in load_pixels(cache.folder, cache.images)}


@pytest.mark.integration
def test_mutated_files_leave_records_and_rejections(tmp_path: Path) -> None:
    check(tmp_path, seed=4, count=200)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 140))
def test_twenty_thousand_mutated_files_leave_records_and_rejections(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed, count=500)
