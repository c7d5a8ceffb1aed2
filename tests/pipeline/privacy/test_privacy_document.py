"""docs/privacy.md matches the code: codes as in the standard, fields as in the reader."""

from dataclasses import fields

import pytest
from pydicom.sr.codedict import Collection

from pipeline.archive.identifier_scan import SAMPLE
from pipeline.dicom.header import Header
from pipeline.label_fields import DESCRIPTION_FIELDS, NUMBER_FIELDS, TEXT_FIELDS
from pipeline.privacy.identifier_search import SHORTEST
from pipeline.recipe.archive import Archive
from tests.pipeline.archive.real import REPOSITORY

TEXT = (REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]

SAID_AS = {
    "sop_instance": "SOPInstanceUID",
    "series": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
    "patient_id": "PatientID",
    "issuer": "IssuerOfPatientID",
    "sop_class": "SOPClassUID",
    "transfer_syntax": "TransferSyntaxUID",
    "photometric": "PhotometricInterpretation",
    "frames": "NumberOfFrames",
    "model": "ManufacturerModelName",
    "transducer_type": "TransducerType",
    "transducer_data": "TransducerData",
    "burned_in": "BurnedInAnnotation",
}


def test_every_profile_and_option_of_the_standard_is_answered_under_its_name() -> None:
    methods = Collection("CID7050").concepts.values()
    expected = {code.value: code.meaning.removesuffix(" Option") for code in methods}
    said = {row[0]: row[1].replace(", Full Dates", " Full Dates").replace(", Modified", " Modified") for row in ROWS}
    assert {code: said.get(code) for code in expected} == expected
    assert len(expected) == 13


@pytest.mark.parametrize("keyword", [*TEXT_FIELDS, *NUMBER_FIELDS, *DESCRIPTION_FIELDS])
def test_every_field_that_labels_are_made_of_is_named(keyword: str) -> None:
    assert any(keyword in row[0] for row in ROWS)


@pytest.mark.parametrize(
    "field",
    [field.name for field in fields(Header) if field.name not in {"for_labels", "descriptions", "unreadable_fields"}],
)
def test_every_field_that_leaves_the_reader_is_named(field: str) -> None:
    assert any(SAID_AS.get(field, field.capitalize()) in row[0] for row in ROWS)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"up to {SAMPLE} files" in TEXT
    assert f"at least {SHORTEST} characters" in TEXT
    assert f"({Archive().description_patients} unless the recipe sets another number" in TEXT
