"""Study descriptions are published only when enough patients share them."""

import pyarrow as pa
import pytest

from pipeline.files import read_table
from pipeline.privacy.descriptions import publish_descriptions, with_rare_descriptions

COLUMNS = pa.schema(
    [
        (name, pa.string())
        for name in ("sop_instance", "patient", "study_description", "described_by", "study", "series", "number")
    ]
)
ROWS = [
    ("p1", "US THYROID"),
    ("p2", "us  thyroid "),
    ("p3", "US THYROID"),
    ("p1", "US LIVER"),
    ("p1", "US LIVER"),
    ("p2", "US LIVER"),
    ("p9", "JANE DOE'S SECOND LOOK"),
    ("p9", None),
]


def record(n: int, patient: str, text: str | None, **told: str | None) -> dict[str, str | None]:
    named = {"study": f"study {n}", "series": f"series {n}", "number": None} | told
    described = {"study_description": text, "described_by": text and "StudyDescription"}
    return {"sop_instance": f"{n:032x}", "patient": patient} | described | named


def records() -> pa.Table:
    return pa.Table.from_pylist([record(n, patient, text) for n, (patient, text) in enumerate(ROWS)], COLUMNS)


def test_patients_are_counted_and_not_images_and_spellings_in_case_and_spaces_are_one(tmp_path):
    published = publish_descriptions(tmp_path, records(), 3)["study_description"].to_pylist()
    assert published == ["US THYROID", "us  thyroid ", "US THYROID", None, None, None, None, None]
    assert (
        publish_descriptions(tmp_path, records(), 2)["study_description"].to_pylist()[3:]
        == ["US LIVER"] * 3 + [None] * 2
    )
    assert publish_descriptions(tmp_path, records(), 1)["study_description"].to_pylist() == [text for _, text in ROWS]


def encoded(rows: pa.Table) -> pa.Table:
    """As the index hands them over: texts that many rows share as dictionaries."""
    for name in ("study", "series"):
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].dictionary_encode())
    return rows


@pytest.mark.parametrize("shared", ["study", "series", "number"])
def test_one_patient_under_several_names_does_not_make_a_description_common(tmp_path, shared):
    names = [record(n, f"name {n}", "JANE DOE'S SECOND LOOK", **{shared: "one"}) for n in range(3)]
    others = [record(10 + n, f"other {n}", "US THYROID") for n in range(3)]
    rows = pa.concat_tables(encoded(pa.Table.from_pylist(part, COLUMNS)) for part in (names, others))
    assert publish_descriptions(tmp_path, rows, 3)["study_description"].to_pylist() == [None] * 3 + ["US THYROID"] * 3
    assert publish_descriptions(tmp_path, rows, 2)["study_description"].to_pylist()[:3] == [None] * 3


def test_rare_descriptions_stay_in_the_private_folder_for_the_labels(tmp_path):
    published = publish_descriptions(tmp_path, records(), 3)
    filled, rare = with_rare_descriptions(tmp_path, published)
    assert filled["study_description"].to_pylist() == [text for _, text in ROWS]
    assert rare.to_pylist() == [False] * 3 + [True] * 4 + [False]
    assert read_table(tmp_path / "descriptions.parquet").num_rows == 4


def test_a_description_that_more_patients_come_to_share_is_published(tmp_path):
    publish_descriptions(tmp_path, records(), 3)
    more = pa.concat_tables([records(), pa.Table.from_pylist([record(255, "p7", "US LIVER")], COLUMNS)])
    assert publish_descriptions(tmp_path, more, 3)["study_description"].to_pylist().count("US LIVER") == 4
    assert read_table(tmp_path / "descriptions.parquet")["study_description"].to_pylist() == [ROWS[6][1]]
