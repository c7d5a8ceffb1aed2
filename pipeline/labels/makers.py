"""Makers of ultrasound machines, as files spell them in Manufacturer (0008,0070)."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

MAKERS: Final[Mapping[str, tuple[str, ...]]] = {
    "SonoSite": ("SONOSITE",),  # before Hitachi: FUJIFILM SonoSite
    "Verasonics": ("VERASONICS",),
    "GE": ("GE", "GEMS", "G E", "GENERAL ELECTRIC", "KRETZ", "KRETZTECHNIK"),
    "Philips": ("PHILIPS", "ATL"),
    "Siemens": ("SIEMENS", "ACUSON"),
    "Canon": ("CANON", "TOSHIBA"),
    "Samsung": ("SAMSUNG", "MEDISON"),
    "Esaote": ("ESAOTE", "BIOSOUND"),
    "Zonare": ("ZONARE",),
    "Mindray": ("MINDRAY",),
    "Hitachi": ("HITACHI", "ALOKA", "FUJIFILM"),
    "SuperSonic": ("SUPERSONIC", "SUPER SONIC", "HOLOGIC"),
    "Ultrasonix": ("ULTRASONIX",),
    "BK": ("BK", "B K", "ANALOGIC"),
    "Butterfly": ("BUTTERFLY",),
    "Clarius": ("CLARIUS",),
    "Terason": ("TERASON", "TERATECH"),
    "Telemed": ("TELEMED",),
    "SonoScape": ("SONOSCAPE",),
    "Alpinion": ("ALPINION",),
    "Konica Minolta": ("KONICA", "MINOLTA"),
}
"""Each maker with the words that name it or a firm whose probes kept their names under it; the first that fits."""

_BETWEEN_WORDS = re.compile(r"[\W_]+")


@cache
def maker_of(manufacturer: str | None) -> str | None:
    """The maker that `manufacturer` names, None if it is absent or unknown: GE for `GE MEDICAL SYSTEMS`."""
    text = f" {_BETWEEN_WORDS.sub(' ', (manufacturer or '').upper()).strip()} "
    return next((maker for maker, words in MAKERS.items() if any(f" {word} " in text for word in words)), None)
