"""Finds any of some ten thousand strings in hundreds of megabytes of text."""

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
"""Characters of a pattern that are compared, its last ones: no system has longer paths."""

_GRAM: Final = 6  # bytes of a pattern that select it as a candidate
_BITS: Final = 22  # of the table of hashed grams: 4 MiB fit into a processor's cache
_FACTORS: Final = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA77))  # odd, bits well mixed
_UNICODE_ESCAPE = re.compile(r"\\+(?:u([0-9a-f]{4})|x([0-9a-f]{2}))")
_SPACE_ESCAPE = re.compile(r"\\+[nrt]")
_URL_ESCAPE = re.compile(r"%[0-9a-f]{2}")
_HTML_ESCAPE = re.compile(r"&(#[0-9]|#x[0-9a-f]|[a-z]+;)")


def comparable(text: str) -> str:
    """`text` in the form in which texts are compared: case folded, composed (NFC), without backslashes."""
    return _folded(text).replace("\\", "")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A string to find, in the form of `comparable` and at least 6 bytes of UTF-8, and its `kind`.

    `bounded`: matches only if no letter and no digit touches it. `only_cells`: matches only in cells of a table.
    """

    text: str
    kind: str
    bounded: bool = False
    only_cells: bool = False


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A pattern as bytes, and the offset in them of the gram that selects it."""

    data: bytes
    offset: int
    pattern: Pattern


class PatternMatcher:
    """Finds all patterns in one pass: the time depends on the text, not on the number of patterns."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        encoded: dict[bytes, Pattern] = {}
        for pattern in patterns:
            data = pattern.text[-LONGEST:].encode("utf-8", "surrogatepass")
            if len(data) >= _GRAM and (data not in encoded or encoded[data].only_cells):
                encoded[data] = pattern
        self._by_gram = _by_rarest_gram(encoded)
        self._table = np.zeros(2**_BITS, dtype=np.bool_)
        self._table[[int(_hashes(gram, 0, 1)[0]) for gram in self._by_gram]] = True
        self._count = len(encoded)

    def __len__(self) -> int:
        return self._count

    def kinds_in(self, text: str, in_cells: bool) -> set[str]:
        """Kinds of the patterns that occur in `text`, as it stands or with escapes of JSON, URLs or HTML decoded."""
        return {kind for variant in _variants(text) for kind in self._kinds(variant, in_cells)}

    def _kinds(self, text: str, in_cells: bool) -> Iterator[str]:
        data = text.encode("utf-8", "surrogatepass")
        for position in self._candidates(data):
            for encoded in self._by_gram.get(data[position : position + _GRAM], ()):
                pattern, start = encoded.pattern, position - encoded.offset
                if pattern.only_cells and not in_cells:
                    continue
                if start >= 0 and data.startswith(encoded.data, start) and _is_bounded(data, start, encoded):
                    yield pattern.kind

    def _candidates(self, data: bytes) -> list[int]:
        """Positions at which a gram may begin, by the hash at every position, in four interleaved rows."""
        positions = []
        for first in range(4):
            count = (len(data) - first - _GRAM + 4) // 4
            if count > 0:
                hashes = _hashes(data, first, count)
                positions.append(np.flatnonzero(self._table.take(hashes, mode="clip")) * 4 + first)
        return [int(position) for position in np.concatenate(positions)] if positions else []


def _by_rarest_gram(patterns: dict[bytes, Pattern]) -> dict[bytes, list[_Encoded]]:
    """Patterns by the gram that the fewest of them contain: common beginnings would select many candidates."""
    counts = Counter(gram for data in patterns for gram in _grams(data))
    by_gram: dict[bytes, list[_Encoded]] = defaultdict(list)
    for data, pattern in patterns.items():
        grams = _grams(data)
        offset = min(range(len(grams)), key=lambda at: counts[grams[at]])
        by_gram[grams[offset]].append(_Encoded(data, offset, pattern))
    return dict(by_gram)


def _grams(data: bytes) -> list[bytes]:
    return [data[at : at + _GRAM] for at in range(len(data) - _GRAM + 1)]


def _hashes(data: bytes, first: int, count: int) -> npt.NDArray[np.uint32]:
    """Hashes of the grams at `first`, `first` + 4 and so on: of four bytes, and of the four that begin two later."""
    head = np.frombuffer(data, np.uint32, count, first)
    tail = np.frombuffer(data, np.uint32, count, first + _GRAM - 4)
    hashes: npt.NDArray[np.uint32] = (head * _FACTORS[0] + tail * _FACTORS[1]) >> np.uint32(32 - _BITS)
    return hashes


def _is_bounded(data: bytes, start: int, encoded: _Encoded) -> bool:
    """Whether the pattern's bounds hold; a number must not continue across a decimal point either."""
    if not encoded.pattern.bounded:
        return True
    end = start + len(encoded.data)
    before, after = data[max(start - 2, 0) : start], data[end : end + 2]
    if _is_alphanumeric(before[-1:]) or _is_alphanumeric(after[:1]):
        return False
    continues = encoded.data[-1:].isdigit() and after[:1] == b"." and after[1:].isdigit()
    continued = encoded.data[:1].isdigit() and before[-1:] == b"." and before[:-1].isdigit()
    return not (continues or continued)


def _is_alphanumeric(byte: bytes) -> bool:
    return byte.isalnum() or byte >= b"\x80"


def _folded(text: str) -> str:
    return text.casefold() if text.isascii() else normalize("NFC", text.casefold())


def _variants(text: str) -> Iterator[str]:
    folded = _folded(text)
    yield folded
    if "\\" in folded:
        yield _without_backslashes(folded)
    if _URL_ESCAPE.search(folded):
        yield _folded(unquote(folded, errors="replace"))
    if _HTML_ESCAPE.search(folded):
        yield _folded(unescape(text))


def _without_backslashes(text: str) -> str:
    """`text` with the escapes of JSON decoded, also of JSON within JSON; other backslashes are removed."""
    text = _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    return _folded(_SPACE_ESCAPE.sub(" ", text).replace("\\", ""))
