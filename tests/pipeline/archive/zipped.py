"""Zip files for tests, also with false statements in their directories.

Belongs here: making and spoiling zips. Not here: expectations.
"""

import io
import struct
import warnings
import zipfile
from collections.abc import Sequence

Entries = Sequence[tuple[str, bytes]]


def zip_of(entries: Entries, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of (name, content) pairs, in their order; names may repeat."""
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as writer:
        warnings.simplefilter("ignore")  # zipfile warns of repeated names
        for name, content in entries:
            writer.writestr(name, content)
    return made.getvalue()


def directory_entry(data: bytes, number: int = 0) -> int:
    """Where the central directory's entry of that number begins."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


def with_stated_size(data: bytes, size: int, number: int = 0) -> bytes:
    """The zip, its directory stating another expanded size of one member (APPNOTE.TXT 4.3.12: offset 24)."""
    at = directory_entry(data, number) + 24
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


def with_flag(data: bytes, bit: int, number: int = 0) -> bytes:
    """The zip with a general purpose flag of one member set, in the directory and in the member's header."""
    spoilt = bytearray(data)
    entry = directory_entry(data, number)
    header = struct.unpack_from("<I", data, entry + 42)[0]
    for at in (entry + 8, header + 6):
        struct.pack_into("<H", spoilt, at, struct.unpack_from("<H", spoilt, at)[0] | bit)
    return bytes(spoilt)
