"""Publishes study descriptions that enough patients share, and keeps the rare ones in the private folder."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import canonical_patients, sharing_patients
from pipeline.errors import DamagedError
from pipeline.files import read_table, write_table
from pipeline.label_fields import TEXT_FIELDS

_PUBLISHED = ("study_description", "described_by")
_RARE = pa.schema([pa.field(name, pa.string()) for name in ("sop_instance", *_PUBLISHED)])


def publish_descriptions(private: Path, records: pa.Table, patients: int) -> pa.Table:
    """`records` without the descriptions that fewer than `patients` patients share; writes those to `private`.

    Spellings that differ in case or spaces are one description, and pseudonyms of a patient that share a study, a
    series or a number are one patient. It does not matter which field a description is from, and the published rows do
    not name the field of a rare one. `records` needs sop_instance, patient, study, series, number, study_description
    and described_by.
    """
    texts = _normalized(records["study_description"].cast(pa.string()))
    pairs = pa.table({"text": texts, "patient": _merged_patients(records)}).group_by("text")
    shared = pairs.aggregate([("patient", "count_distinct")])
    enough = shared["text"].filter(pc.greater_equal(shared["patient_count_distinct"], patients))
    rare = pc.and_(pc.is_valid(texts), pc.invert(pc.is_in(texts, value_set=enough)))
    hidden = records.select(_RARE.names).filter(rare)
    write_table(_path(private), hidden.take(pc.sort_indices(hidden["sop_instance"])).cast(_RARE))
    for name in _PUBLISHED:
        at = records.schema.get_field_index(name)
        published = pc.if_else(rare, pa.scalar(None, records[name].type), records[name])
        records = records.set_column(at, name, published)
    return records


def _merged_patients(records: pa.Table) -> pa.ChunkedArray:
    """The patient of each record, under one pseudonym if it has several."""
    shared = {name: _codes(records[name]) for name in ("study", "series", "number")}
    one = canonical_patients(sharing_patients(pa.table({"patient": records["patient"], **shared}), [*shared]))
    if not one:
        return records["patient"]
    at = pc.index_in(records["patient"], value_set=pa.array(list(one), pa.string()))
    return pc.coalesce(pa.array(one.values(), pa.string()).take(at), records["patient"])


def _codes(texts: pa.ChunkedArray) -> pa.Array:
    """A number per distinct text, which takes less memory than the texts."""
    return texts.unify_dictionaries().combine_chunks().dictionary_encode().indices


def _normalized(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_upper(pc.replace_substring_regex(pc.utf8_trim_whitespace(texts), r"\s+", " "))


def with_rare_descriptions(private: Path, index: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
    """`index` (DICOM_INDEX) including the rare descriptions, and a flag per record that has one; never published."""
    rare = read_table(_path(private), _RARE.names) if _path(private).is_file() else _RARE.empty_table()
    found = rare.take(pc.index_in(index["sop_instance"], value_set=rare["sop_instance"]))
    for name in _PUBLISHED:
        at = index.schema.get_field_index(name)
        index = index.set_column(at, index.schema.field(at), pc.coalesce(index[name], found[name]))
    return index, pc.is_valid(found["sop_instance"])


def rare_descriptions(private: Path) -> Mapping[str, str]:
    """The descriptions that too few patients share to be published, with the field that each is from.

    None if their table is damaged, and none from a field that the index publishes in a column of its own.
    """
    try:
        rare = read_table(_path(private), _PUBLISHED)
    except (OSError, DamagedError):
        return {}
    pairs = zip(*(rare[name].to_pylist() for name in _PUBLISHED), strict=True)
    return {text: keyword for text, keyword in pairs if keyword not in TEXT_FIELDS}


def _path(private: Path) -> Path:
    return private / "descriptions.parquet"
