"""Finding any of some ten thousand strings in hundreds of megabytes of text.

Belongs here: the search itself, and the form in which texts are compared. Not here: what is looked for and where.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import unescape
from typing import Final
from unicodedata import normalize
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

LONGEST: Final = 4000
"""Characters of a needle that are compared, its last ones: paths are no longer on any system."""

_GRAM: Final = 6  # bytes by which a needle is noticed
_BITS: Final = 22  # of the table of hashed grams: 4 MiB, which stays in a processor's cache
_FACTORS: Final = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA77))  # odd, bits well mixed
_UNICODE_ESCAPE = re.compile(r"\\+(?:u([0-9a-f]{4})|x([0-9a-f]{2}))")
_SPACE_ESCAPE = re.compile(r"\\+[nrt]")
_URL_ESCAPE = re.compile(r"%[0-9a-f]{2}")
_HTML_ESCAPE = re.compile(r"&(#[0-9]|#x[0-9a-f]|[a-z]+;)")


def plain(text: str) -> str:
    """`text` as it is compared: without regard to case, and without the backslashes that escapes are made of."""
    return _folded(text).replace("\\", "")


@dataclass(frozen=True, slots=True)
class Needle:
    """A string to find, as `plain` gives it, at least 6 bytes of UTF-8, and the `kind` of thing it is.

    `bounded`: only where no letter and no digit touches it. `only_cells`: only in the cells of a table.
    """

    text: str
    kind: str
    bounded: bool = False
    only_cells: bool = False


@dataclass(frozen=True, slots=True)
class _Sought:
    """A needle as bytes, and how far in them the gram lies by which it is noticed."""

    data: bytes
    offset: int
    needle: Needle


class Needles:
    """Strings to find, all at once: a text costs the same for one of them and for thousands."""

    def __init__(self, needles: Iterable[Needle]) -> None:
        found: dict[bytes, Needle] = {}
        for needle in needles:
            data = needle.text[-LONGEST:].encode("utf-8", "surrogatepass")
            if len(data) >= _GRAM and (data not in found or found[data].only_cells):
                found[data] = needle
        self._by_gram = _noticed(found)
        self._table = np.zeros(2**_BITS, dtype=np.bool_)
        self._table[[_hashed(gram) for gram in self._by_gram]] = True
        self._count = len(found)

    def __len__(self) -> int:
        return self._count

    def found_in(self, text: str, in_cells: bool) -> set[str]:
        """The kinds of needles that occur in `text`, as it stands or with the escapes of JSON, a URL or HTML undone."""
        return {kind for variant in _variants(text) for kind in self._kinds(variant, in_cells)}

    def _kinds(self, text: str, in_cells: bool) -> Iterator[str]:
        data = text.encode("utf-8", "surrogatepass")
        for position in self._candidates(data):
            for sought in self._by_gram.get(data[position : position + _GRAM], ()):
                needle, start = sought.needle, position - sought.offset
                if needle.only_cells and not in_cells:
                    continue
                if start >= 0 and data.startswith(sought.data, start) and _stands_there(data, start, sought):
                    yield needle.kind

    def _candidates(self, data: bytes) -> list[int]:
        """Where a gram may begin: the table is asked for the hash at every position, four interleaved rows of them."""
        positions = []
        for first in range(4):
            count = (len(data) - first - _GRAM + 4) // 4
            if count > 0:
                hashes = _hashes(data, first, count)
                positions.append(np.flatnonzero(self._table.take(hashes, mode="clip")) * 4 + first)
        return [int(position) for position in np.concatenate(positions)] if positions else []


def _noticed(needles: dict[bytes, Needle]) -> dict[bytes, list[_Sought]]:
    """Needles by that one of their grams which the fewest needles have: common beginnings would be noticed often."""
    counts = Counter(gram for data in needles for gram in _grams(data))
    by_gram: dict[bytes, list[_Sought]] = defaultdict(list)
    for data, needle in needles.items():
        grams = _grams(data)
        offset = min(range(len(grams)), key=lambda at: counts[grams[at]])
        by_gram[grams[offset]].append(_Sought(data, offset, needle))
    return dict(by_gram)


def _grams(data: bytes) -> list[bytes]:
    return [data[at : at + _GRAM] for at in range(len(data) - _GRAM + 1)]


def _hashed(gram: bytes) -> int:
    return int(_hashes(gram, 0, 1)[0])


def _hashes(data: bytes, first: int, count: int) -> npt.NDArray[np.uint32]:
    """Hashes of the grams at `first`, `first` + 4 and so on: of four bytes, and of the four that begin two later."""
    head = np.frombuffer(data, np.uint32, count, first)
    tail = np.frombuffer(data, np.uint32, count, first + _GRAM - 4)
    hashes: npt.NDArray[np.uint32] = (head * _FACTORS[0] + tail * _FACTORS[1]) >> np.uint32(32 - _BITS)
    return hashes


def _stands_there(data: bytes, start: int, sought: _Sought) -> bool:
    """Whether the needle's bounds hold: a number does not go on behind a decimal point either."""
    if not sought.needle.bounded:
        return True
    end = start + len(sought.data)
    before, after = data[max(start - 2, 0) : start], data[end : end + 2]
    if _alphanumeric(before[-1:]) or _alphanumeric(after[:1]):
        return False
    goes_on = sought.data[-1:].isdigit() and after[:1] == b"." and after[1:].isdigit()
    began = sought.data[:1].isdigit() and before[-1:] == b"." and before[:-1].isdigit()
    return not (goes_on or began)


def _alphanumeric(byte: bytes) -> bool:
    return byte.isalnum() or byte >= b"\x80"


def _folded(text: str) -> str:
    """`text` without regard to case, and to whether accents are letters' parts or stand behind them."""
    return text.casefold() if text.isascii() else normalize("NFC", text.casefold())


def _variants(text: str) -> Iterator[str]:
    folded = _folded(text)
    yield folded
    if "\\" in folded:
        yield _unescaped(folded)
    if _URL_ESCAPE.search(folded):
        yield _folded(unquote(folded, errors="replace"))
    if _HTML_ESCAPE.search(folded):
        yield _folded(unescape(text))


def _unescaped(text: str) -> str:
    """`text` with the escapes of JSON, also of JSON within JSON, undone; what is left of backslashes goes."""
    text = _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    return _folded(_SPACE_ESCAPE.sub(" ", text).replace("\\", ""))
