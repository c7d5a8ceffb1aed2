"""What is known of each image of the pool beside its pixels: labels, machine, source and side, as words."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.label_report import machine_of
from pipeline.recipe.labels import Labels, ProbeSource, StudyGroupsSource
from pipeline.source_numbers import source_numbers

UNKNOWN, NONE = "unknown", "none"
GROUPS, PROBE, MACHINE, SOURCE, SPLIT = "study groups", "probe shape", "machine", "source", "split"
_SIDES = {"train": "training", "val": "validation"}


def image_facts(pool: pa.Table, index: pa.Table, folders: Sequence[bytes], labels: Labels) -> dict[str, list[str]]:
    """Facts by name, each with a value for every image of `pool`, which `index` (DICOM_INDEX) describes.

    Labels have one fact per source of labels. `folders` are the sources of the images; they are numbered
    (`source_numbers`), since folders can have people's names. If there are none, sources are no fact.
    """
    records = index.take(pc.index_in(pool["sop_instance"], value_set=index["sop_instance"]))
    machines = zip(*(records[name].to_pylist() for name in ("manufacturer", "model")), strict=True)
    numbers = source_numbers(folders, pool["patient"].to_pylist()) if folders else []
    return {
        **{title: labels_of(pool, names) for title, names in _label_sources(labels).items()},
        MACHINE: [machine_of(*of_image) or UNKNOWN for of_image in machines],
        **({SOURCE: [f"folder {number}" for number in numbers]} if folders else {}),
        SPLIT: [_SIDES[side] for side in pool["split"].to_pylist()],
    }


def labels_of(pool: pa.Table, names: Sequence[str]) -> list[str]:
    """For each image of `pool`, which of the labels `names` it has; "unknown" if one of them is."""
    columns = zip(*(pool[name].to_pylist() for name in names), strict=True)
    return [_having(names, values) for values in columns]


def positions_in(pool: pa.Table, images: pa.Table) -> list[int | None]:
    """The row of each of `images` in `pool`, by instance and frame; None if the pool has lost it."""
    keys = (zip(rows["sop_instance"].to_pylist(), rows["frame"].to_pylist(), strict=True) for rows in (pool, images))
    of_pool, wanted = keys
    position = {key: row for row, key in enumerate(of_pool)}
    return [position.get(key) for key in wanted]


def _having(names: Sequence[str], values: Sequence[int | None]) -> str:
    if None in values:
        return UNKNOWN
    return ", ".join(name for name, value in zip(names, values, strict=True) if value) or NONE


def _label_sources(labels: Labels) -> Mapping[str, list[str]]:
    """The labels by the title of their source: study groups, probe shape, or the field of the header."""
    found: dict[str, list[str]] = {}
    for source in labels.sources:
        if isinstance(source, StudyGroupsSource):
            title = GROUPS
        else:
            title = PROBE if isinstance(source, ProbeSource) else source.field
        found.setdefault(title, []).extend(source.names)
    return found
