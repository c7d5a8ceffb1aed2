"""Names of probes: what in TransducerData (0018,5010) is a name, how names compare, and patterns of names.

A pattern is a name with signs: `#` stands for a number, `?` for one letter, `*` for any characters or none. Case,
spaces and the kind of dash do not count, and an underscore is a dash.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from pipeline.whitespace import collapse_whitespace

_DASHES = str.maketrans(dict.fromkeys("_\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_ID_CODE = re.compile(r"[0-9A-F]{2}")
"""Two hexadecimal digits that the Sequoia 512 writes before the name; GE has probes called 4C and 8C."""
_TYPE_NUMBER = re.compile(r"\d{4}")
"""B-K's names of probes, such as 8804."""
_NO_NAMES = {"", "UNUSED", "NONE", "N/A", "UNKNOWN"}

_SIGNS = {"#": r"\d+", "?": r"[^\W\d_]", "*": ".*"}


def name_key(name: str) -> str:
    """`name` in the form in which names compare: upper case, without spaces, each dash a hyphen."""
    return unicodedata.normalize("NFKC", collapse_whitespace(name)).upper().translate(_DASHES).replace(" ", "")


def names_in(transducer_data: str | None, maker: str | None) -> tuple[str, ...]:
    """The values of TransducerData that may be names, in their order: no `UNUSED`, and none without a letter.

    An exception are the four digits of a probe's type at B-K.
    """
    values = (collapse_whitespace(_CONTROLS.sub(" ", part)) for part in (transducer_data or "").split("\\"))
    keys = {value: name_key(value) for value in values}
    return tuple(value for value, key in keys.items() if not _is_no_name(key, maker))


def _may_be_name(key: str, maker: str | None) -> bool:
    return _has_letter(key) or (maker == "BK" and _TYPE_NUMBER.fullmatch(key) is not None)


def _is_no_name(key: str, maker: str | None) -> bool:
    is_id = maker == "Siemens" and _ID_CODE.fullmatch(key) is not None
    return key in _NO_NAMES or not _may_be_name(key, maker) or is_id


@dataclass(frozen=True)
class NamePattern:
    """A name or a pattern of names, in the form of `name_key`. Raises `ValueError` if it cannot be one."""

    text: str

    def __post_init__(self) -> None:
        if not _has_letter(self.text) and not _TYPE_NUMBER.fullmatch(self.text):
            raise ValueError("has no letter, and is not a type of four digits")
        if self.text.count("*") > 1 or "##" in self.text:  # matching them could take very long
            raise ValueError("has * more than once, or two # in a row")

    @property
    def is_name(self) -> bool:
        """Whether it is a single name."""
        return not set(_SIGNS) & set(self.text)

    def fits(self, key: str) -> bool:
        """Whether the name whose `name_key` is `key` has this form."""
        return bool(self._expression.fullmatch(key))

    def meets(self, other: "NamePattern") -> bool:
        """Whether some name has both forms."""
        return _meet(self._steps, other._steps)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile("".join(_SIGNS.get(sign) or re.escape(sign) for sign in self.text))

    @cached_property
    def _steps(self) -> tuple["_Step", ...]:
        steps: list[_Step] = []
        for sign in self.text:
            steps += [_Step(sign), _Step("#", repeats=True)] if sign == "#" else [_Step(sign, repeats=sign == "*")]
        return tuple(steps)


@dataclass(frozen=True)
class _Step:
    """One character of a name: itself, any digit (#), any letter (?) or any at all (*); `repeats`: or none, or more."""

    sign: str
    repeats: bool = False

    def meets(self, other: "_Step") -> bool:
        return self._allows(other.sign) or other._allows(self.sign)

    def _allows(self, sign: str) -> bool:
        of_class = (self.sign == "#" and sign.isdecimal()) or (self.sign == "?" and sign.isalpha())
        return self.sign in ("*", sign) or of_class


def pattern_of(name: str, maker: str | None) -> NamePattern:
    """The pattern that a row of `maker` states as `name`. Raises `ValueError` if it can be none."""
    key = name_key(name)
    if not _may_be_name(key, maker):
        raise ValueError("has no letter")
    return NamePattern(key)


def _has_letter(text: str) -> bool:
    return any(sign.isalpha() for sign in text)


def _meet(one: tuple[_Step, ...], other: tuple[_Step, ...]) -> bool:
    """Whether some text takes all steps of both: each pair of positions is visited once."""
    seen, open_pairs = set(), [(0, 0)]
    while open_pairs:
        at = open_pairs.pop()
        if at in seen:
            continue
        seen.add(at)
        left, right = one[at[0] :][:1], other[at[1] :][:1]
        if not left and not right:
            return True
        open_pairs += _next_pairs(at, left, right)
    return False


def _next_pairs(at: tuple[int, int], left: tuple[_Step, ...], right: tuple[_Step, ...]) -> list[tuple[int, int]]:
    """The pairs of positions after both took one character, or after a step that repeats was left."""
    i, j = at
    pairs = [(i + 1, j)] if left and left[0].repeats else []
    pairs += [(i, j + 1)] if right and right[0].repeats else []
    if left and right and left[0].meets(right[0]):
        pairs.append((i + (not left[0].repeats), j + (not right[0].repeats)))
    return pairs
