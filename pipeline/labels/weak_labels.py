"""Weak labels: what an image's tags say of it (paper section 3.3).

Belongs here: probe and study groups to 0/1 labels, and what the tags leave open. Not here: which images train.
"""

import re
from collections import Counter, defaultdict

import pyarrow as pa

from pipeline.labels.study_groups import Groups, StudyGroups, normalized
from pipeline.recipe import PROBES, Labels, Probe
from pipeline.tables import UNMAPPED_DESCRIPTIONS, weak_labels_table

LABELLED = "labelled"
UNMAPPED = "unmapped_description"
IN_NO_GROUP = "in_no_group"
UNKNOWN_PROBE = "unknown_probe"

TOO_RARE = "(too rare to publish)"
"""In place of the study descriptions that too few patients share."""

# Words and names of probes that are neither linear nor curvilinear, whatever else stands beside them: phased arrays
# and sector or vector scans, probes inside the body, mechanical and 3D probes.
_NEITHER_WORDS = {
    *("PHASED", "SECTOR", "VECTOR", "ANNULAR", "MECHANICAL", "BIPLANE"),
    *("ENDOCAVITY", "ENDOCAVITARY", "INTRACAVITY", "INTRACAVITARY", "ENDOVAGINAL", "TRANSVAGINAL"),
    *("ENDORECTAL", "TRANSRECTAL", "TRANSESOPHAGEAL", "TRANSOESOPHAGEAL", "TEE", "INTRAVASCULAR", "IVUS", "ICE"),
}
_WORD = re.compile(r"[A-Z]+")
# A probe's name: letters, a frequency band such as 14-6, 5_1 or 10-3, and a maker's suffix.
_NAME = re.compile(r"([A-Z]+)\d{1,2}[-_]\d{1,2}([A-Z]*)")
_ENDOCAVITY_SUFFIXES = ("V", "EC")  # C10-3v, C9-5ec: curved, but inside the body


def probe_of(transducer_type: str | None, transducer_data: str | None, settings: Labels) -> Probe | None:
    """The probe's shape from TransducerType (0018,6031) and TransducerData (0018,5010), None where they do not tell.

    In this order: a known model among TransducerData's values; whole words of TransducerType, then of TransducerData,
    the longest of `settings.probe_words` that occurs; the letters before the frequency band of a probe's name. Phased,
    vector, sector and endocavity probes are neither shape: a word that says so ends the search.
    """
    values = [
        value for part in (transducer_data or "").split("\\") if (value := normalized(part)) not in {"", "UNUSED"}
    ]
    models = {normalized(name): probe for name, probe in settings.probe_models.items()}
    for value in values:
        if value in models:
            return models[value]
    texts = [" ".join(_WORD.findall(text)) for text in (normalized(transducer_type or ""), *values)]
    if any(word in _NEITHER_WORDS for text in texts for word in text.split()):
        return None
    by_word = (_by_word(text, settings) for text in texts)
    by_name = (_by_name(value, settings) for value in values)
    return next((probe for probe in (*by_word, *by_name) if probe), None)


def _by_word(text: str, settings: Labels) -> Probe | None:
    """The probe of the longest phrase that stands in `text` as whole words."""
    for phrase in sorted(settings.probe_words, key=len, reverse=True):
        if f" {normalized(phrase)} " in f" {text} ":
            return settings.probe_words[phrase]
    return None


def _by_name(value: str, settings: Labels) -> Probe | None:
    """The probe of a name such as L14-6Ns or C5-1, by the letters before its frequency band."""
    name = _NAME.fullmatch(value)
    if not name or name[2] in _ENDOCAVITY_SUFFIXES:
        return None
    return {normalized(prefix): probe for prefix, probe in settings.probe_prefixes.items()}.get(name[1])


def weak_labels(index: pa.Table, groups: StudyGroups, settings: Labels) -> pa.Table:
    """Each record's labels and status (schema `weak_labels_table(settings.names)`), in the order of `index`.

    `index` needs sop_instance, study_description, transducer_type and transducer_data. Of several reasons for an
    incomplete label the first of unmapped_description, in_no_group, unknown_probe is the status; what is known is
    filled in all the same, and what is not is null, never 0.
    """
    tags = index.select(["study_description", "transducer_type", "transducer_data"])
    kinds: dict[tuple[str | None, ...], int] = {}  # a million records carry some hundred combinations of tags
    kind_of = [kinds.setdefault(row, len(kinds)) for row in zip(*(c.to_pylist() for c in tags.columns), strict=True)]
    rows = [
        _row(groups.groups_of(description), probe_of(kind, data, settings), settings)
        for description, kind, data in kinds
    ]
    schema = weak_labels_table(settings.names).schema
    labels = pa.Table.from_pylist(rows, schema=pa.schema(list(schema)[1:])).take(pa.array(kind_of, pa.int64()))
    return labels.add_column(0, schema.field(0), index["sop_instance"].cast(pa.string())).cast(schema)


def _row(groups: Groups | None, probe: Probe | None, settings: Labels) -> dict[str, str | int | None]:
    return {
        "status": _status(groups, probe),
        **{name: None if groups is None else int(name in groups) for name in settings.groups},
        **{name: None if probe is None else int(name == probe) for name in PROBES},
    }


def _status(groups: Groups | None, probe: Probe | None) -> str:
    if groups is None:
        return UNMAPPED
    if not groups:
        return IN_NO_GROUP
    return LABELLED if probe else UNKNOWN_PROBE


def unmapped_descriptions(index: pa.Table, groups: StudyGroups, rare: pa.ChunkedArray | None = None) -> pa.Table:
    """The descriptions that `groups` does not know (schema UNMAPPED_DESCRIPTIONS), the most frequent first.

    Spellings that differ in case or spaces are one description; records without one count under an empty one. Where
    `rare` (a flag per record) is true, the description must not be published: those are one row, TOO_RARE.
    """
    images: Counter[str] = Counter()
    patients: dict[str, set[str]] = defaultdict(set)
    hidden = [False] * index.num_rows if rare is None else rare.to_pylist()
    columns = (index[name].to_pylist() for name in ("study_description", "patient"))
    for description, patient, hide in zip(*columns, hidden, strict=True):
        if groups.groups_of(description) is None:
            shown = TOO_RARE if hide else normalized(description or "")
            images[shown] += 1
            patients[shown].add(patient)
    rows = [
        {"study_description": description, "images": images[description], "patients": len(patients[description])}
        for description in sorted(images, key=lambda description: (-images[description], description))
    ]
    return pa.Table.from_pylist(rows, schema=UNMAPPED_DESCRIPTIONS.schema)
