"""The fast parser finds the same elements as pydicom's parser, and both stay within their limits."""

import io
import random
import time
import tracemalloc
import zlib
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pipeline.dicom.fast_parse import fast_parse
from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.parse import looks_like_dicom, read_elements
from pipeline.dicom.parsed_file import UNDEFINED
from pipeline.dicom.pydicom_parse import MAX_INFLATED_BYTES, pydicom_parse
from pipeline.dicom.quiet import quiet
from pipeline.dicom.rejections import Rejected
from tests.pipeline.archive.real import shared_data
from tests.pipeline.archive.synthetic import dataset, noise, write_dicom

KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PatientID",
    "PatientName",
    "StudyDescription",
    "TransducerData",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "PhotometricInterpretation",
)
TAGS = frozenset(tag_of(keyword) for keyword in KEYWORDS)
WHEEL = Path(pydicom.data.__file__).parent
SPECIMENS = (
    "test_files/CT_small.dcm",
    "test_files/MR_small_RLE.dcm",
    "test_files/MR_small_implicit.dcm",
    "test_files/examples_palette.dcm",
    "charset_files/chrH32.dcm",
    "test_files/rtdose_1frame.dcm",
    "test_files/examples_ybr_color.dcm",
    "test_files/SC_rgb_jpeg_gdcm.dcm",
)
"""Of little endian, explicit and implicit, native and encapsulated; with private and nested sequences."""


def values_of(parsed):
    """Everything that was found, as values."""
    fields = Fields(parsed.elements, parsed.encodings)
    values = {keyword: fields.text(keyword) for keyword in KEYWORDS}
    return values, fields.unreadable, parsed.transfer_syntax, parsed.pixels


def both(content):
    """Results of the fast parser and of pydicom's parser for `content`; (None, None) if the fast one declines."""
    file = io.BytesIO(content)
    if not looks_like_dicom(content[:132]):
        return None, None
    quick = fast_parse(file, len(content), TAGS, content[: 2**14])
    return (None, None) if quick is None else (values_of(quick), values_of(pydicom_parse(file, len(content), TAGS)))


def reason_of(content):
    with pytest.raises(Rejected) as rejected:
        read_elements(io.BytesIO(content), len(content), TAGS)
    return rejected.value.rejection.reason.value


def element(tag, vr, value):
    """One element in explicit little endian."""
    group, number = (tag >> 16).to_bytes(2, "little"), (tag & 0xFFFF).to_bytes(2, "little")
    if vr in {b"OB", b"SQ", b"UN"}:
        return group + number + vr + b"\0\0" + len(value).to_bytes(4, "little") + value
    return group + number + vr + len(value).to_bytes(2, "little") + value


def part10(body, syntax=ExplicitVRLittleEndian):
    """A file of preamble, prefix, the shortest meta header and `body`."""
    return bytes(128) + b"DICM" + element(0x00020010, b"UI", syntax.encode() + b"\0" * (len(syntax) % 2)) + body


def images_below(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < 2**21]


@pytest.mark.parametrize("where", ["wheel", "samples", "archive"])
def test_both_parsers_find_the_same(where):
    folders = {"samples": "dicom_samples", "archive": "real_archive"}
    folder = WHEEL if where == "wheel" else shared_data() / folders[where]
    step = 150 if where == "archive" else 1
    compared = 0
    for path in images_below(folder)[::step]:
        quick, slow = both(path.read_bytes())
        assert quick == slow, path.name
        compared += quick is not None
    assert compared >= {"wheel": 60, "samples": 25, "archive": 30}[where]  # of the files that have pixel data


@pytest.mark.parametrize("name", SPECIMENS)
def test_both_parsers_find_the_same_after_bytes_were_changed(name):
    content = (WHEEL / name).read_bytes()[:60_000]
    chance = random.Random(name)
    compared = 0
    for _ in range(120):
        changed = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 6])):
            place = chance.randrange(min(len(content), chance.choice([400, 4000])))
            changed[place] = chance.choice([0, 255, chance.randrange(256), changed[place] ^ 1 << chance.randrange(8)])
        quick, slow = both(bytes(changed))
        assert quick == slow
        compared += quick is not None
    assert compared >= 5


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_sequences_of_undefined_length_are_stepped_over(tmp_path, syntax):
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "of no interest"
    outer = Dataset()
    outer.ConceptCodeSequence = Sequence([inner, inner])
    outer["ConceptCodeSequence"].is_undefined_length = True
    for item in outer.ConceptCodeSequence:
        item.is_undefined_length_sequence_item = True
    path = write_dicom(tmp_path / "x", TransferSyntaxUID=syntax, ContentSequence=Sequence([outer]), PatientID="P7")
    content = path.read_bytes()
    quick, slow = both(content)
    assert quick is not None and quick == slow
    assert quick[0]["PatientID"] == "P7"


def test_a_header_longer_than_the_first_read_is_parsed_fast_too(tmp_path):
    long = b"x" * 60_000
    path = write_dicom(tmp_path / "x", PatientComments=long[:10_000].decode(), EncapsulatedDocument=long)
    quick, slow = both(path.read_bytes())
    assert quick is not None and quick == slow and quick[0]["Rows"] == "12"


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_left_to_the_parser(tmp_path, syntax):
    content = write_dicom(tmp_path / "x", TransferSyntaxUID=syntax, PatientID="P7").read_bytes()
    assert fast_parse(io.BytesIO(content), len(content), TAGS, content) is None
    values, _, found, pixels = values_of(read_elements(io.BytesIO(content), len(content), TAGS))
    assert values["PatientID"] == "P7" and found == syntax and pixels.length == 192


def test_pixel_data_are_found_at_their_position(tmp_path):
    content = write_dicom(tmp_path / "x").read_bytes()
    pixels = read_elements(io.BytesIO(content), len(content), TAGS).pixels
    assert content[pixels.start : pixels.start + pixels.length] == noise().tobytes()
    packed = (WHEEL / "test_files" / "examples_ybr_color.dcm").read_bytes()
    pixels = read_elements(io.BytesIO(packed), len(packed), TAGS).pixels
    assert pixels.length == UNDEFINED and packed[pixels.start : pixels.start + 4] == b"\xfe\xff\x00\xe0"


@pytest.mark.parametrize("encapsulated", [False, True])
def test_needed_elements_behind_the_pixels_are_found(encapsulated):
    start = b"\xe0\x7f\x10\x00OB\0\0"
    item = b"\xfe\xff\x00\xe0\x04\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0"
    pixels = start + (b"\xff\xff\xff\xff" + item if encapsulated else b"\x04\0\0\0abcd")
    content = part10(element(0x00080060, b"CS", b"US") + pixels + element(0x00280010, b"US", b"\x0c\0"))
    rows = frozenset({tag_of("Rows")})
    found = read_elements(io.BytesIO(content), len(content), TAGS, rows)
    assert values_of(found)[0]["Rows"] == "12" and values_of(found)[0]["Modality"] == "US"
    assert values_of(read_elements(io.BytesIO(content), len(content), TAGS))[0]["Rows"] is None


def test_other_files_are_recognised_by_their_first_bytes():
    for content in (b"", b"x" * 500, bytes(500), b"PK\x03\x04" * 50, b"\xff\xd8\xff" * 200):
        assert reason_of(content) == "not_dicom"


def test_no_value_is_printed_or_logged(tmp_path, caplog, recwarn, capfd):
    path = write_dicom(tmp_path / "x")
    content = path.read_bytes().replace(b"P1", b"\xff\xfe")  # not of its character set
    values_of(read_elements(io.BytesIO(content), len(content), TAGS))
    read_elements(io.BytesIO(content + b"odd"), len(content), TAGS)
    with quiet():
        dcmread(io.BytesIO(content)).PatientID  # noqa: B018
    assert not caplog.records and not recwarn.list and capfd.readouterr() == ("", "")


def nested(depth):
    """A sequence within a sequence, `depth` deep, all of undefined length."""
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return opening * depth + closing * depth


def bomb(size):
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = element(0x00091001, b"OB", bytes(2**20))
    data = b"".join(deflater.compress(block) for _ in range(size // 2**20)) + deflater.flush()
    return part10(data, DeflatedExplicitVRLittleEndian)


def private(count):
    return part10(b"".join(element(0x00090000 + n % 0xFFFF, b"LO", b"") for n in range(count)))


HOSTILE = {
    "nested": (lambda: part10(nested(5000)), "over_limits"),
    "bomb": (lambda: bomb(2 * MAX_INFLATED_BYTES), "over_limits"),
    "a million elements": (lambda: private(1_000_000), "over_limits"),
    "a huge length": (lambda: part10(b"\x10\x00\x20\x00UN\0\0\xf0\xff\xff\xff" + b"x" * 100), None),
    "a sequence of nothing": (lambda: part10(nested(3)[:60]), "unreadable_header"),
    "deflated and cut off": (lambda: bomb(2**22)[:400], "incomplete"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_limited_in_time_and_memory(kind):
    make, reason = HOSTILE[kind]
    content = make()
    began, before = time.monotonic(), getrusage(RUSAGE_SELF).ru_maxrss
    if reason is None:
        assert read_elements(io.BytesIO(content), len(content), TAGS).pixels is None
    else:
        assert reason_of(content) == reason
    assert time.monotonic() - began < 4
    assert (getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024 < 2.5 * MAX_INFLATED_BYTES


@pytest.mark.parametrize("frames", range(0, 120, 7))
def test_the_reason_for_nesting_does_not_depend_on_the_depth_of_the_caller(frames):
    def call(depth):
        return call(depth - 1) if depth else reason_of(part10(nested(5000)))

    assert call(frames) == "over_limits"


def test_a_hundred_thousand_private_elements_are_no_obstacle():
    body = private(100_000) + element(0x00100020, b"LO", b"P7") + b"\xe0\x7f\x10\x00OB\0\0\0\0\0\0"
    began = time.monotonic()
    found = read_elements(io.BytesIO(body), len(body), TAGS)
    assert time.monotonic() - began < 4 and values_of(found)[0]["PatientID"] == "P7"


def test_a_file_that_cannot_be_read_from_is_an_error_of_the_system(tmp_path):
    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_elements(Failing(b"x" * 500), 500, TAGS)


def test_a_large_value_that_was_not_requested_is_not_read():
    made = dataset(noise())
    made.EncapsulatedDocument = bytes(30 * 2**20)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    tracemalloc.start()
    try:
        assert read_elements(buffer, buffer.getbuffer().nbytes, TAGS).pixels
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
