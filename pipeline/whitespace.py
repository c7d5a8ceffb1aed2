"""White space of any kind as single spaces, so that texts that look alike are equal.

Read by header fields (`pipeline.dicom.fields`) and by the mapping of study descriptions.
"""

import re

# `\s` are Unicode's white space and the controls among them. The others are invisible: zero width space, word joiner,
# zero width no-break space (the byte order mark), the Mongolian vowel separator, the braille blank and Hangul fillers.
_WHITE = re.compile("[\\s\u200b\u2060\ufeff\u180e\u2800\u3164\u115f\u1160\uffa0]+")


def collapse_whitespace(text: str) -> str:
    """`text` with each run of white space, tabs, line breaks and invisible spaces as one space; none at its ends."""
    return _WHITE.sub(" ", text).strip(" ")
