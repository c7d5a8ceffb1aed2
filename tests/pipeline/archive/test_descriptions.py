"""Study descriptions are published only when enough patients share them."""

import pyarrow as pa

from pipeline.archive.descriptions import publish_descriptions, with_rare_descriptions
from pipeline.files import read_table

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


def records() -> pa.Table:
    rows = [
        {"sop_instance": f"{n:032x}", "patient": patient, "study_description": text}
        for n, (patient, text) in enumerate(ROWS)
    ]
    return pa.Table.from_pylist(rows)


def test_patients_are_counted_and_not_images_and_spellings_in_case_and_spaces_are_one(tmp_path):
    published = publish_descriptions(tmp_path, records(), 3)["study_description"].to_pylist()
    assert published == ["US THYROID", "us  thyroid ", "US THYROID", None, None, None, None, None]
    assert (
        publish_descriptions(tmp_path, records(), 2)["study_description"].to_pylist()[3:]
        == ["US LIVER"] * 3 + [None] * 2
    )
    assert publish_descriptions(tmp_path, records(), 1)["study_description"].to_pylist() == [text for _, text in ROWS]


def test_what_is_too_rare_stays_in_the_private_folder_for_the_labels(tmp_path):
    published = publish_descriptions(tmp_path, records(), 3)
    filled, rare = with_rare_descriptions(tmp_path, published)
    assert filled["study_description"].to_pylist() == [text for _, text in ROWS]
    assert rare.to_pylist() == [False] * 3 + [True] * 4 + [False]
    assert read_table(tmp_path / "descriptions.parquet").num_rows == 4


def test_a_description_that_more_patients_come_to_share_is_published(tmp_path):
    publish_descriptions(tmp_path, records(), 3)
    more = pa.concat_tables(
        [records(), pa.table({"sop_instance": ["f" * 32], "patient": ["p7"], "study_description": ["US LIVER"]})]
    )
    assert publish_descriptions(tmp_path, more, 3)["study_description"].to_pylist().count("US LIVER") == 4
    assert read_table(tmp_path / "descriptions.parquet")["study_description"].to_pylist() == [ROWS[6][1]]
