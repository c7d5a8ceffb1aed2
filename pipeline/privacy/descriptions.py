"""Which study descriptions are published: those that enough patients share.

Belongs here: counting patients per description, the private table of the rare ones. Not here: what they mean.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import canonical_patients, sharing_patients
from pipeline.files import read_table, write_table

_RARE = pa.schema([pa.field("sop_instance", pa.string()), pa.field("study_description", pa.string())])


def publish_descriptions(private: Path, records: pa.Table, patients: int) -> pa.Table:
    """`records` without the descriptions that fewer than `patients` patients share; those go to the private folder.

    Spellings that differ in case or spaces are one description, and names of a patient that share a study, a series or
    a number are one patient. `records` needs sop_instance, patient, study, series, number and study_description.
    """
    at = records.schema.get_field_index("study_description")
    records = records.set_column(at, "study_description", records["study_description"].cast(pa.string()))
    texts = _normalized(records["study_description"])
    pairs = pa.table({"text": texts, "patient": _persons(records)}).group_by("text")
    shared = pairs.aggregate([("patient", "count_distinct")])
    enough = shared["text"].filter(pc.greater_equal(shared["patient_count_distinct"], patients))
    rare = pc.and_(pc.is_valid(texts), pc.invert(pc.is_in(texts, value_set=enough)))
    hidden = records.select(_RARE.names).filter(rare)
    write_table(private / "descriptions.parquet", hidden.take(pc.sort_indices(hidden["sop_instance"])).cast(_RARE))
    published = pc.if_else(rare, pa.scalar(None, pa.string()), records["study_description"])
    return records.set_column(at, records.schema.field(at), published)


def _persons(records: pa.Table) -> pa.ChunkedArray:
    """The patient of each of `records`, by one name where it has several."""
    shared = {name: _codes(records[name]) for name in ("study", "series", "number")}
    one = canonical_patients(sharing_patients(pa.table({"patient": records["patient"], **shared}), [*shared]))
    if not one:
        return records["patient"]
    at = pc.index_in(records["patient"], value_set=pa.array(list(one), pa.string()))
    return pc.coalesce(pa.array(one.values(), pa.string()).take(at), records["patient"])


def _codes(texts: pa.ChunkedArray) -> pa.Array:
    """A number for each different text, which takes less memory than the texts."""
    return texts.unify_dictionaries().combine_chunks().dictionary_encode().indices


def _normalized(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_upper(pc.replace_substring_regex(pc.utf8_trim_whitespace(texts), r"\s+", " "))


def with_rare_descriptions(private: Path, index: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
    """`index` (DICOM_INDEX) with the rare descriptions filled in, and a flag per record that has one.

    For labels and for the reviewer in the private folder; never to be published.
    """
    path = private / "descriptions.parquet"
    rare = read_table(path, _RARE.names) if path.is_file() else _RARE.empty_table()
    found = rare["study_description"].take(pc.index_in(index["sop_instance"], value_set=rare["sop_instance"]))
    at = index.schema.get_field_index("study_description")
    filled = index.set_column(at, index.schema.field(at), pc.coalesce(index["study_description"], found))
    return filled, pc.is_valid(found)
