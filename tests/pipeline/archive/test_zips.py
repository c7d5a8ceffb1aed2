"""Zips: what is in them, and what happens with those that are broken, hostile or too large."""

import io
import random
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from pipeline.archive import zips
from pipeline.archive.zips import SEPARATOR, OpenZip, is_zip, members
from pipeline.dicom.rejections import Reason, Rejected
from tests.pipeline.archive.zipped import with_flag, with_stated_size, zip_of

NOISE = np.random.default_rng(1).integers(0, 64, 300_000, np.uint8).tobytes()


def content(data: bytes, name: str, whole: bool = True) -> bytes:
    with OpenZip(io.BytesIO(data)).open(name, whole) as member:
        return member.read()


def reason_of(data: bytes, name: str, whole: bool = True) -> Reason:
    with pytest.raises(Rejected) as rejected:
        content(data, name, whole)
    assert name not in rejected.value.rejection.detail
    return rejected.value.rejection.reason


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_have_the_content_that_was_packed(method, whole):
    data = zip_of([("a/one.dcm", NOISE), ("empty", b""), ("a/", b""), ("Übersicht", b"two")], method)
    listed = members(io.BytesIO(data))
    assert [(member.name, member.size) for member in listed] == [("a/one.dcm", 300_000), ("empty", 0), ("Übersicht", 3)]
    assert listed[0].crc == zipfile.crc32(NOISE) and listed[0].problem is None
    assert [content(data, member.name, whole) for member in listed] == [NOISE, b"", b"two"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_member_can_be_read_in_any_order(whole):
    with OpenZip(io.BytesIO(zip_of([("x", NOISE)]))).open("x", whole) as member:
        for start in (250_000, 10, 299_990, 0, 131_072):
            assert member.seek(start) == start == member.tell()
            assert member.read(100) == NOISE[start : start + 100]
        assert member.seek(0, io.SEEK_END) == len(NOISE)
        assert member.read(1) == b""


def test_two_members_can_be_read_in_turns():
    opened = OpenZip(io.BytesIO(zip_of([("x", NOISE), ("y", NOISE[::-1])])))
    with opened.open("x", False) as one, opened.open("y", False) as other:
        for start in range(0, 300_000, 100_000):
            assert one.read(100_000) == NOISE[start : start + 100_000]
            assert other.read(100_000) == NOISE[::-1][start : start + 100_000]


def test_equal_names_are_distinguished():
    data = zip_of([("x", b"first"), ("y", b"other"), ("x", b"second"), ("x", b"third")])
    names = [member.name for member in members(io.BytesIO(data))]
    assert names == ["x", "y", f"x{SEPARATOR}1", f"x{SEPARATOR}2"]
    assert [content(data, name) for name in names] == [b"first", b"other", b"second", b"third"]


def test_names_that_lead_elsewhere_are_only_names(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    names = ["../../outside", "/etc/passwd", "C:\\windows\\x", "a\\..\\..\\b"]
    data = zip_of([(name, name.encode()) for name in names])
    assert [content(data, name) for name in names] == [name.encode() for name in names]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_zip_is_recognised_by_its_content():
    assert is_zip(zip_of([("x", b"1")])) and is_zip(zip_of([]))
    assert members(io.BytesIO(zip_of([]))) == []
    assert not is_zip(b"PK") and not is_zip(b"PK\x01\x02") and not is_zip(b"")


def test_an_encrypted_member_costs_itself_alone():
    data = with_flag(zip_of([("secret", NOISE), ("open", b"content")]), 0x1)
    problems = [member.problem and member.problem.reason for member in members(io.BytesIO(data))]
    assert problems == [Reason.UNREADABLE_CONTAINER, None]
    assert reason_of(data, "secret") == Reason.UNREADABLE_CONTAINER
    assert content(data, "open") == b"content"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_cannot_be_bounded_are_not_expanded(method):
    data = zip_of([("x", bytes(1 << 24))], method)
    assert members(io.BytesIO(data))[0].problem.reason == Reason.UNREADABLE_CONTAINER
    assert reason_of(data, "x") == Reason.UNREADABLE_CONTAINER


def test_a_member_that_states_more_than_the_bounds_is_over_them():
    packed = zip_of([("x", NOISE)])
    for size in (zips.MAX_MEMBER_BYTES + 1, 1101 * len(NOISE)):
        data = with_stated_size(packed, size)
        assert members(io.BytesIO(data))[0].problem.reason == Reason.OVER_LIMITS
        assert reason_of(data, "x") == Reason.OVER_LIMITS


def test_black_frames_are_not_taken_for_a_bomb():
    data = zip_of([("black", bytes(50_000_000))])
    assert len(data) < 50_000_000 / 1000
    assert members(io.BytesIO(data))[0].problem is None
    assert content(data, "black") == bytes(50_000_000)


def test_a_zip_that_expands_to_more_than_the_bound_is_over_it():
    data = zip_of([(str(number), b"x" * 4000) for number in range(3)])
    assert len(members(io.BytesIO(data))) == 3
    for number in range(3):
        data = with_stated_size(data, 0x70000000, number)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Rejected) as rejected:
        patch.setattr(zips, "MAX_TOTAL_BYTES", 5 << 30)
        members(io.BytesIO(data))
    assert rejected.value.rejection.reason == Reason.OVER_LIMITS


@pytest.mark.parametrize("bound", ["MAX_MEMBERS", "MAX_DIRECTORY_BYTES"])
def test_a_directory_is_bounded_before_it_is_parsed(bound, monkeypatch):
    data = zip_of([(str(number), b"") for number in range(40)])
    monkeypatch.setattr(zips, bound, {"MAX_MEMBERS": 39, "MAX_DIRECTORY_BYTES": 46 * 40}[bound])
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", lambda *_: pytest.fail("an entry was parsed"))
    with pytest.raises(Rejected) as rejected:
        members(io.BytesIO(data))
    assert rejected.value.rejection.reason == Reason.OVER_LIMITS


@pytest.mark.parametrize("whole", [True, False])
def test_a_bomb_with_a_false_size_does_not_expand_beyond_it(whole):
    data = with_stated_size(zip_of([("x", bytes(200_000_000))]), 1000)
    tracemalloc.start()
    assert reason_of(data, "x", whole) == Reason.UNREADABLE_CONTAINER  # the checksum is not that of 1000 bytes
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_the_head_of_a_bomb_costs_no_memory():
    data = zip_of([("x", bytes(400_000_000))])
    tracemalloc.start()
    with OpenZip(io.BytesIO(data)).open("x", whole=False) as member:
        assert member.read(132) == bytes(132)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_large_member_is_not_held_in_memory(monkeypatch):
    monkeypatch.setattr(zips, "MAX_MEMORY_BYTES", 1_000_000)
    data = zip_of([("x", bytes(100_000_000))])
    tracemalloc.start()
    with OpenZip(io.BytesIO(data)).open("x", whole=True) as member:
        assert member.seek(99_000_000) and member.read(10) == bytes(10)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000  # zipfile skips 16 MiB at a time
    tracemalloc.stop()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_size_stated_too_large_does_not_cost_the_content(method, whole):
    data = with_stated_size(zip_of([("x", NOISE)], method), 300_100)
    assert content(data, "x", whole) == NOISE


def test_a_wrong_checksum_is_rejected():
    data = bytearray(zip_of([("x", NOISE)], zipfile.ZIP_STORED))
    data[1000] ^= 1
    assert reason_of(bytes(data), "x") == Reason.UNREADABLE_CONTAINER


def test_a_name_that_is_not_the_utf8_it_claims_to_be():
    data = zip_of([("Ü", b"1")]).replace("Ü".encode(), b"\xff\xfe")
    with pytest.raises(Rejected) as rejected:
        members(io.BytesIO(data))
    assert rejected.value.rejection.reason == Reason.UNREADABLE_CONTAINER


def outcome(data: bytes) -> object:
    """What reading everything in a zip comes to; anything but content or a rejection is raised."""
    try:
        opened = OpenZip(io.BytesIO(data))
    except Rejected as rejected:
        return rejected.rejection.reason
    results = []
    for name in opened.members:
        for whole in (True, False):
            try:
                with opened.open(name, whole) as member:
                    results.append(member.read())
            except Rejected as rejected:
                results.append(rejected.rejection.reason)
    return results


def test_a_zip_cut_off_anywhere_is_rejected():
    data = zip_of([(f"name {number}", NOISE[: 100 * number]) for number in range(8)])
    for length in range(4, len(data) - 1, 37):
        assert outcome(data[:length]) == Reason.UNREADABLE_CONTAINER


def test_flipped_bytes_give_content_or_a_rejection_and_soon():
    dice = random.Random(3)
    data = zip_of([(f"name {number}", NOISE[: 300 * number]) for number in range(5)])
    directory = len(data) - 5 * 60
    for trial in range(600):
        spoilt = bytearray(data)
        for _ in range(dice.randrange(1, 5)):
            spoilt[dice.randrange(0 if trial % 2 else directory, len(data))] = dice.randrange(256)
        started = time.perf_counter()
        outcome(bytes(spoilt))
        assert time.perf_counter() - started < 2
