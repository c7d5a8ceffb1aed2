"""The shape of the probe from Manufacturer, TransducerType and TransducerData, never guessed (paper section 3.3)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.labels.makers import maker_of
from pipeline.labels.probe_names import name_key, names_in
from pipeline.labels.probe_tables import Probes
from pipeline.labels.study_groups import normalized
from pipeline.recipe.labels import ProbeSource, Shape

# Words for probes that are neither linear nor curvilinear, regardless of the rest of the text, among them those of
# PS3.3 C.8.5.6 (ENDOCAV_LINEAR, IV_PHASED, SECTOR_MECH ...). The first that occurs decides.
_ENDS: Mapping[str, Shape | None] = {
    **dict.fromkeys(("ENDOCAV", "ENDOCAVITY", "ENDOCAVITARY", "INTRACAVITY", "INTRACAVITARY"), "endocavity"),
    **dict.fromkeys(("ENDOVAGINAL", "TRANSVAGINAL", "ENDORECTAL", "TRANSRECTAL"), "endocavity"),
    **dict.fromkeys(("TRANSESOPHAGEAL", "TRANSOESOPHAGEAL", "TEE"), "endoluminal"),
    **dict.fromkeys(("IV", "INTRAVASCULAR", "IVUS", "ICE"), "endoluminal"),
    **dict.fromkeys(("BIPLANE", "MECHANICAL"), None),
    **dict.fromkeys(("PHASED", "SECTOR", "VECTOR", "ANNULAR"), "phased"),
}
_WORD = re.compile(r"[A-Z]+")
# A probe's name: letters, a frequency band such as 14-6, 5_1 or 10-3, and a manufacturer's suffix.
_BAND = re.compile(r"([A-Z]+)\d{1,2}-\d{1,2}([A-Z]*)")
_ENDOCAVITY_SUFFIXES = ("V", "EC")  # C10-3v, C9-5ec: curved, but inside the body
_EITHER = ("linear", "curvilinear")


@dataclass(frozen=True)
class ProbeTags:
    """What a header states of the probe; values of TransducerData are joined by a backslash."""

    manufacturer: str | None = None
    transducer_type: str | None = None
    transducer_data: str | None = None


def probe_of(tags: ProbeTags, settings: ProbeSource, probes: Probes) -> Shape | None:
    """The label of `settings` that `tags` state: the probe's shape; None if it is unknown or none of the labels."""
    shape = shape_of_probe(tags, settings, probes)
    return shape if shape in settings.shapes else None


def shape_of_probe(tags: ProbeTags, settings: ProbeSource, probes: Probes) -> Shape | None:
    """The probe's shape, None if `tags` do not state it.

    The first that knows it decides: the recipe's `models`, by the names in TransducerData; the user's rows; the shipped
    table, if the shape is neither linear nor curvilinear; words for such shapes; the longest of `settings.words` among
    the whole words of TransducerType, then of TransducerData; the shipped table; the recipe's `prefixes`.
    """
    maker = maker_of(tags.manufacturer)
    names = names_in(tags.transducer_data, maker)
    models = {name_key(name): shape for name, shape in settings.own_models.items()}
    if reviewed := _first(models.get(name_key(name)) or probes.own_shape(maker, name) for name in names):
        return reviewed
    named = _first(probes.shape_of(maker, name) for name in names)
    if named and named not in _EITHER:
        return named
    texts = [" ".join(_WORD.findall(normalized(text))) for text in (tags.transducer_type or "", *names)]
    words = {word for text in texts for word in text.split()}
    for word, neither in _ENDS.items():
        if word in words:
            return neither
    return _first(_by_words(texts, settings)) or named or _first(_by_prefix(names, settings))


def _first(shapes: Iterable[Shape | None]) -> Shape | None:
    return next((shape for shape in shapes if shape), None)


def _by_words(texts: list[str], settings: ProbeSource) -> Iterator[Shape]:
    """The shapes of the phrases that the texts contain as whole words, those of each text the longest first."""
    phrases = sorted(settings.words, key=len, reverse=True)
    return (settings.words[phrase] for text in texts for phrase in phrases if f" {normalized(phrase)} " in f" {text} ")


def _by_prefix(names: tuple[str, ...], settings: ProbeSource) -> Iterator[Shape | None]:
    """The shapes of names such as L14-6Ns or C5-1 by the letters before their frequency band."""
    prefixes = {normalized(prefix): shape for prefix, shape in settings.own_prefixes.items()}
    bands = (_BAND.fullmatch(name_key(name)) for name in names)
    return (prefixes.get(band[1]) for band in bands if band and band[2] not in _ENDOCAVITY_SUFFIXES)
