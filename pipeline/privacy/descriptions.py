"""Publishes study descriptions that enough patients share, and keeps the rare ones in the private folder."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import canonical_patients, sharing_patients
from pipeline.errors import DamagedError
from pipeline.files import read_table, write_table

_RARE = pa.schema([pa.field("sop_instance", pa.string()), pa.field("study_description", pa.string())])


def publish_descriptions(private: Path, records: pa.Table, patients: int) -> pa.Table:
    """`records` without the descriptions that fewer than `patients` patients share; writes those to `private`.

    Spellings that differ in case or spaces are one description, and pseudonyms of a patient that share a study, a
    series or a number are one patient. `records` needs sop_instance, patient, study, series, number and
    study_description.
    """
    at = records.schema.get_field_index("study_description")
    records = records.set_column(at, "study_description", records["study_description"].cast(pa.string()))
    texts = _normalized(records["study_description"])
    pairs = pa.table({"text": texts, "patient": _merged_patients(records)}).group_by("text")
    shared = pairs.aggregate([("patient", "count_distinct")])
    enough = shared["text"].filter(pc.greater_equal(shared["patient_count_distinct"], patients))
    rare = pc.and_(pc.is_valid(texts), pc.invert(pc.is_in(texts, value_set=enough)))
    hidden = records.select(_RARE.names).filter(rare)
    write_table(_path(private), hidden.take(pc.sort_indices(hidden["sop_instance"])).cast(_RARE))
    published = pc.if_else(rare, pa.scalar(None, pa.string()), records["study_description"])
    return records.set_column(at, records.schema.field(at), published)


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
    found = rare["study_description"].take(pc.index_in(index["sop_instance"], value_set=rare["sop_instance"]))
    at = index.schema.get_field_index("study_description")
    filled = index.set_column(at, index.schema.field(at), pc.coalesce(index["study_description"], found))
    return filled, pc.is_valid(found)


def rare_descriptions(private: Path) -> frozenset[str]:
    """The study descriptions that too few patients share to be published; none if their table is damaged."""
    try:
        rare = read_table(_path(private), ["study_description"])["study_description"]
    except (OSError, DamagedError):
        return frozenset()
    return frozenset(rare.drop_null().to_pylist())


def _path(private: Path) -> Path:
    return private / "descriptions.parquet"
