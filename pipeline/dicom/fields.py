"""Convert raw elements to text, UIDs and numbers, each on its own: a bad field is lost alone, not with its file."""

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from itertools import islice
from math import isfinite
from typing import Any, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from pipeline.dicom.parsed_file import Element, element_value
from pipeline.dicom.quiet import quiet
from pipeline.whitespace import collapse_whitespace

_LONGEST_TEXT = 256  # characters; a value of the fields read here has at most 64 by PS3.5 section 6.2
_LONGEST_VALUE = 2**14  # bytes; no value of these fields is longer
_MOST_CODES = 16  # items of a code sequence that are read
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UID = re.compile(r"[0-9.]{1,64}")
_PLAIN_UID = re.compile(rb"([0-9.]{1,64})\0?")
_Join = Callable[[Any], str | None]
"""Makes one text of an element's value; raises `_Unreadable`."""


@cache
def tag_of(keyword: str) -> int:
    """The tag of a keyword of PS3.6."""
    return int(Tag(keyword))


class _Unreadable(Exception):  # noqa: N818 - an outcome of reading, not an error of the program
    """An element has a value that cannot be read."""


class Fields:
    """The values of elements by keyword; unreadable ones are None, like absent ones, and collected in `unreadable`."""

    def __init__(self, elements: Mapping[int, Element], encodings: tuple[str, ...]) -> None:
        self._elements, self._encodings = elements, encodings
        self.unreadable: set[str] = set()

    def text(self, field: str) -> str | None:
        """The field as one printable line, several values joined by a backslash; None if it is empty.

        Each run of white space becomes one space.
        """
        return self._read(field, _single_line, _joined)

    def code_meanings(self, field: str) -> str | None:
        """CodeMeaning (0008,0104) of the items of a code sequence, in the form of `text`."""
        return self._read(field, _single_line, _meanings)

    def identifier(self, field: str) -> str | None:
        """The same, but with inner spaces unchanged and no other white space: the input of pseudonyms."""
        return self._read(field, _printable, _joined)

    def _read(self, field: str, normalise: Callable[[str], str], join: _Join) -> str | None:
        element = self._elements.get(tag_of(field))
        if element is None:
            return None
        try:
            text = _text(element, self._encodings, join)
        except _Unreadable:
            self.unreadable.add(field)
            return None
        return normalise(text)[:_LONGEST_TEXT].strip() or None if text else None

    def uid(self, field: str) -> str | None:
        """The field if it is a well-formed UID; anything else could be text that is not allow-listed."""
        element = self._elements.get(tag_of(field))
        if isinstance(element, RawDataElement) and (plain := _PLAIN_UID.fullmatch(element.value or b"")):
            return plain[1].decode()
        text = self.identifier(field)
        if text is None or _UID.fullmatch(text):
            return text
        self.unreadable.add(field)
        return None

    def yes(self, field: str) -> bool:
        """Whether the field is YES."""
        return (self.text(field) or "").upper() == "YES"

    def number(self, field: str) -> int | None:
        """The field if it is one whole number."""
        text = self.text(field)
        if text is None or text.isdecimal():
            return int(text) if text else None
        number = _float(text)
        if number is None or not number.is_integer():  # some write 3.0 for three frames
            self.unreadable.add(field)
            return None
        return int(number)

    def decimals(self, field: str) -> list[float]:
        """The field's values if all are finite numbers, otherwise none."""
        text = self.text(field)
        numbers = [_float(part) for part in text.split("\\")] if text else []
        if None in numbers:
            self.unreadable.add(field)
            return []
        return cast(list[float], numbers)


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _text(element: Element, encodings: tuple[str, ...], join: _Join) -> str | None:
    """The element's value as text by `join`. Raises `_Unreadable`."""
    if not isinstance(element, RawDataElement):
        return join(element.value)
    tag, vr, _, value, _, implicit, little, *_ = element
    if not value:
        return None
    if len(value) > _LONGEST_VALUE:
        raise _Unreadable
    return _text_of(tag, vr, value, implicit, little, encodings, join)


@lru_cache(2**13)
def _text_of(
    tag: int, vr: str | None, value: bytes, implicit: bool, little: bool, encodings: tuple[str, ...], join: _Join
) -> str | None:
    """Cached: converting a value takes as long as skipping thirty, and most files of an archive share most values."""
    raw = RawDataElement(Tag(tag), vr, len(value), value, 0, implicit, little)
    try:
        with quiet():
            return join(element_value(raw, encodings))
    except Exception:
        raise _Unreadable from None


def _joined(value: Any) -> str | None:
    """Values as one text. Raises `_Unreadable` for a sequence, whose text would hold all elements of its items."""
    if value is None:
        return None
    if isinstance(value, Sequence):
        raise _Unreadable
    return "\\".join(str(part) for part in value) if isinstance(value, MultiValue | list) else str(value)


def _meanings(value: Any) -> str | None:
    """The meanings of the first codes in a sequence. Raises `_Unreadable`."""
    if not isinstance(value, Sequence):
        raise _Unreadable
    stated = (_meaning(item) for item in islice(value, _MOST_CODES))
    return "\\".join(text for text in stated if text)


def _meaning(item: Dataset) -> str:
    tag, encodings = tag_of("CodeMeaning"), item.original_character_set
    if tag not in item:
        return ""
    text = _text(item.get_item(tag), (encodings,) if isinstance(encodings, str) else tuple(encodings), _joined)
    return (text or "").strip()


@lru_cache(2**13)
def _single_line(text: str) -> str:
    """`text` in printable characters with single spaces between words; control characters separate words, too."""
    return collapse_whitespace(_printable(collapse_whitespace(_CONTROLS.sub(" ", text))))


def _printable(text: str) -> str:
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text.strip()
