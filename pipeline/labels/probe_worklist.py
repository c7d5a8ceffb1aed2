"""The worklist of probes: names whose shape is unknown, with a suggested one, as a CSV to fill in.

`probe_tables` reads the CSV back.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.csv_files import NOT_REVIEWED, csv_text
from pipeline.labels.makers import maker_of
from pipeline.labels.probe import ProbeTags, shape_of_probe
from pipeline.labels.probe_names import NamePattern, name_key, names_in
from pipeline.labels.probe_pictures import Suggestion
from pipeline.labels.probe_tables import COLUMNS, Probes
from pipeline.labels.study_groups import for_spreadsheet
from pipeline.labels.weak_labels import TOO_RARE
from pipeline.recipe.labels import Labels, ProbeSource, Shape
from pipeline.tables import UNMAPPED_PROBES
from pipeline.whitespace import collapse_whitespace

_LETTERS: tuple[tuple[str, Shape], ...] = (
    *(("SL#*", "linear"), ("L?#*", "linear"), ("L#*", "linear"), ("#L*", "linear")),
    *(("SC#*", "curvilinear"), ("C?#*", "curvilinear"), ("C#*", "curvilinear"), ("#C*", "curvilinear")),
    *(("P?#*", "phased"), ("P#*", "phased"), ("E?#*", "endocavity"), ("E#*", "endocavity"), ("TEE*", "endoluminal")),
)
"""Letters that many makers use alike, the first that fits; a suggestion only, as `C` alone errs in one of six names."""


class ProbeName(NamedTuple):
    """A probe in the worklist: its maker, or Manufacturer of a maker that no table has, and its name or nothing."""

    maker: str
    name: str


def suggestion(name: str, probes: Probes, shown: Suggestion | None = None) -> Suggestion | None:
    """The first shape of: what most makers with a row for `name` give it; its letters; its pictures (`shown`).

    Pictures come last, since they do not tell a curvilinear probe from an endocavity one. Their reason is always part
    of the suggestion's; that of the letters only if no maker has the name.
    """
    by_names = _by_names(probes.by_maker(name))
    found = [one for one in (by_names, None if by_names else _by_letters(name), shown) if one]
    shape = next((one.shape for one in found if one.shape), None)
    return Suggestion(shape, "; ".join(one.why for one in found)) if found else None


def _by_names(by_maker: Mapping[str, Shape]) -> Suggestion | None:
    """The shape that most makers give; without one if two shapes are equally frequent."""
    ranked = Counter(by_maker.values()).most_common()
    if not ranked:
        return None
    makers = {shape: [maker for maker, its in by_maker.items() if its == shape] for shape, _ in ranked}
    why = "; ".join(f"{shape} by the names of {', '.join(makers[shape])}" for shape, _ in ranked)
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    return Suggestion(None if tied else ranked[0][0], why)


def _by_letters(name: str) -> Suggestion | None:
    letters = ((form, shape) for form, shape in _LETTERS if NamePattern(form).fits(name_key(name)))
    return next((Suggestion(shape, f"many makers call {shape} probes {form}") for form, shape in letters), None)


def unknown_names(index: pa.Table, settings: Labels, probes: Probes) -> list[ProbeName | None]:
    """For each record of `index` the probe whose shape its tags do not state; None if they state it.

    All are None if no label of `settings` comes from probes.
    """
    sources = [source for source in settings.sources if isinstance(source, ProbeSource)]
    if not sources:
        return [None] * index.num_rows
    columns = (index[name].to_pylist() for name in ("manufacturer", "transducer_type", "transducer_data"))
    records = [ProbeTags(*values) for values in zip(*columns, strict=True)]
    found = {tags: _unknown_name(tags, sources, probes) for tags in set(records)}  # a few hundred of a million records
    return [found[tags] for tags in records]


def unmapped_probes(
    index: pa.Table,
    unknown: Sequence[ProbeName | None],
    probes: Probes,
    min_patients: int = 0,
    aliases: Mapping[str, str] | None = None,
    shown: Mapping[ProbeName, Suggestion] | None = None,
) -> pa.Table:
    """The names in `unknown`, one per record of `index` (schema UNMAPPED_PROBES), the most frequent first.

    Records without a name count under an empty one. TransducerData may hold serial numbers, so names that fewer than
    `min_patients` patients share must not be published: they share a row TOO_RARE for each maker. `aliases` maps
    pseudonyms of a patient to one of them. `shown` is what each probe's pictures suggest.
    """
    one = aliases or {}
    counts: dict[ProbeName, _Count] = defaultdict(_Count)
    columns = (index[name].to_pylist() for name in ("model", "patient"))
    for name, model, patient in zip(unknown, *columns, strict=True):
        if name is not None:
            counts[name].add(model, one.get(patient, patient))
    return _table(_published(counts, min_patients), probes, shown or {})


def worklist_csv(rows: pa.Table) -> str:
    """The worklist as CSV with the columns of a table of probes, in the order of `rows` (UNMAPPED_PROBES).

    It begins with a byte order mark, without which Excel reads UTF-8 as Windows-1252. `shape` holds a question mark and
    the suggestion; the mark means that the row is not reviewed and counts as absent. A maker that the tables lack is
    left empty. Records without a name and the rows TOO_RARE cannot be mapped and are left out.
    """
    notes = ("model", "images", "patients", "why")
    cells = (
        (
            maker_of(row["manufacturer"]) or "",
            for_spreadsheet(row["name"]),
            f"{NOT_REVIEWED} {row['suggested_shape'] or ''}".strip(),
            *(for_spreadsheet(str(row[note] or "")) for note in notes),
        )
        for row in rows.to_pylist()
        if row["name"] not in ("", TOO_RARE)
    )
    return "\ufeff" + csv_text((*COLUMNS, *notes), cells)


def facts_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a page shows of a row of UNMAPPED_PROBES beside maker and name, with names."""
    suggested = f"{row['suggested_shape']} ({row['why']})" if row["suggested_shape"] else "none"
    return [
        *(("models", row["model"]), ("images", str(row["images"])), ("patients", str(row["patients"]))),
        ("suggestion", suggested),
    ]


class _Count:
    """Records of one name: how many, their models and patients, and the name as first spelt."""

    def __init__(self) -> None:
        self.images = 0
        self.models: set[str] = set()
        self.patients: set[str] = set()

    def add(self, model: str | None, patient: str) -> None:
        self.images += 1
        self.models |= {collapse_whitespace(model)} if model else set()
        self.patients.add(patient)

    def merge(self, other: "_Count") -> None:
        self.images += other.images
        self.models |= other.models
        self.patients |= other.patients


def _unknown_name(tags: ProbeTags, sources: Iterable[ProbeSource], probes: Probes) -> ProbeName | None:
    if any(shape_of_probe(tags, source, probes) for source in sources):
        return None
    maker = maker_of(tags.manufacturer)
    names = names_in(tags.transducer_data, maker)
    return ProbeName(maker or collapse_whitespace(tags.manufacturer or ""), name_key(names[0]) if names else "")


def _published(counts: dict[ProbeName, _Count], min_patients: int) -> dict[ProbeName, _Count]:
    shown: dict[ProbeName, _Count] = defaultdict(_Count)
    for probe, count in counts.items():
        rare = probe.name and len(count.patients) < min_patients
        shown[ProbeName(probe.maker, TOO_RARE) if rare else probe].merge(count)
    return shown


def _table(counts: dict[ProbeName, _Count], probes: Probes, shown: Mapping[ProbeName, Suggestion]) -> pa.Table:
    rows = []
    for probe, count in sorted(counts.items(), key=lambda item: (-item[1].images, item[0])):
        found = _suggested(probe, probes, shown.get(probe))
        rows.append(
            {
                "manufacturer": probe.maker,
                "model": ", ".join(sorted(count.models)),
                "name": probe.name,
                "images": count.images,
                "patients": len(count.patients),
                "suggested_shape": found and found.shape,
                "why": found and found.why,
            }
        )
    return pa.Table.from_pylist(rows, schema=UNMAPPED_PROBES.schema)


def _suggested(probe: ProbeName, probes: Probes, shown: Suggestion | None) -> Suggestion | None:
    """What a row of the worklist says of a probe; no shape for records without a name, which can be of many probes."""
    if probe.name == TOO_RARE:
        return None
    if not probe.name:
        return shown and Suggestion(None, f"{shown.why}; without a name they cannot be mapped")
    return suggestion(probe.name, probes, shown)
