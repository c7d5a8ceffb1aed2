"""Normalization of white space in header fields and study descriptions."""

import re

# `\s` is Unicode white space. The others are invisible: zero width space, word joiner, zero width no-break space (the
# byte order mark), Mongolian vowel separator, braille blank, Hangul fillers.
_WHITE = re.compile("[\\s\u200b\u2060\ufeff\u180e\u2800\u3164\u115f\u1160\uffa0]+")


def collapse_whitespace(text: str) -> str:
    """`text` with each run of white space and invisible spaces replaced by one space, and none at its ends."""
    return _WHITE.sub(" ", text).strip(" ")
