"""The shape of the probe from TransducerType and TransducerData, never guessed (paper section 3.3)."""

import re

from pipeline.labels.study_groups import normalized
from pipeline.recipe.labels import Probe, ProbeSource

# Words for probes that are neither linear nor curvilinear, regardless of the rest of the text: phased arrays, sector
# and vector scans, probes inside the body, mechanical and 3D probes.
_NEITHER_WORDS = {
    *("PHASED", "SECTOR", "VECTOR", "ANNULAR", "MECHANICAL", "BIPLANE"),
    *("ENDOCAVITY", "ENDOCAVITARY", "INTRACAVITY", "INTRACAVITARY", "ENDOVAGINAL", "TRANSVAGINAL"),
    *("ENDORECTAL", "TRANSRECTAL", "TRANSESOPHAGEAL", "TRANSOESOPHAGEAL", "TEE", "INTRAVASCULAR", "IVUS", "ICE"),
}
_WORD = re.compile(r"[A-Z]+")
# A probe's name: letters, a frequency band such as 14-6, 5_1 or 10-3, and a manufacturer's suffix.
_NAME = re.compile(r"([A-Z]+)\d{1,2}[-_]\d{1,2}([A-Z]*)")
_ENDOCAVITY_SUFFIXES = ("V", "EC")  # C10-3v, C9-5ec: curved, but inside the body


def probe_of(transducer_type: str | None, transducer_data: str | None, settings: ProbeSource) -> Probe | None:
    """The probe's shape from TransducerType (0018,6031) and TransducerData (0018,5010), None if they do not state it.

    Looks, in this order, for a known model among TransducerData's values; for the longest of `settings.words` among
    the whole words of TransducerType, then of TransducerData; for the letters before the frequency band of a probe's
    name. A word for phased, vector, sector or endocavity probes, which have neither shape, ends the search.
    """
    values = [
        value for part in (transducer_data or "").split("\\") if (value := normalized(part)) not in {"", "UNUSED"}
    ]
    models = {normalized(name): probe for name, probe in settings.models.items()}
    for value in values:
        if value in models:
            return models[value]
    texts = [" ".join(_WORD.findall(text)) for text in (normalized(transducer_type or ""), *values)]
    if any(word in _NEITHER_WORDS for text in texts for word in text.split()):
        return None
    by_word = (_by_word(text, settings) for text in texts)
    by_name = (_by_name(value, settings) for value in values)
    return next((probe for probe in (*by_word, *by_name) if probe), None)


def _by_word(text: str, settings: ProbeSource) -> Probe | None:
    """The probe of the longest phrase that `text` contains as whole words."""
    for phrase in sorted(settings.words, key=len, reverse=True):
        if f" {normalized(phrase)} " in f" {text} ":
            return settings.words[phrase]
    return None


def _by_name(value: str, settings: ProbeSource) -> Probe | None:
    """The probe of a name such as L14-6Ns or C5-1 by the letters before its frequency band."""
    name = _NAME.fullmatch(value)
    if not name or name[2] in _ENDOCAVITY_SUFFIXES:
        return None
    return {normalized(prefix): probe for prefix, probe in settings.prefixes.items()}.get(name[1])
