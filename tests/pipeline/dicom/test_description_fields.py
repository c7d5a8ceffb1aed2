"""The fields that may describe a study, as the header reader finds them in files of every kind."""

import io
import time

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pipeline.dicom.header import Header
from pipeline.label_fields import DESCRIPTION_FIELDS
from tests.pipeline.archive.synthetic import dataset, noise
from tests.pipeline.dicom.test_header import header_of, made, outcome

SEQUENCES = ["ProcedureCodeSequence", "AnatomicRegionSequence"]
TAGS = {  # PS3.6, in little endian
    "StudyDescription": b"\x08\x00\x30\x10",
    "BodyPartExamined": b"\x18\x00\x15\x00",
    "Manufacturer": b"\x08\x00\x70\x00",
    "ProcedureCodeSequence": b"\x08\x00\x32\x10",
}


def code(meaning: str | None, **more: object) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "T-62000", "SRT"
    if meaning is not None:
        item.CodeMeaning = meaning
    for name, value in more.items():
        setattr(item, name, value)
    return item


def undefined_length(**fields: str | list[Dataset]) -> bytes:
    """A file whose sequences and items end with delimiters."""
    data = dataset(noise(), **fields)
    for keyword in fields.keys() & {*SEQUENCES}:
        data[keyword].is_undefined_length = True
        for item in data[keyword].value:
            item.is_undefined_length_sequence_item = True
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_these_fields_are_read_in_this_order():
    assert list(DESCRIPTION_FIELDS) == [
        "StudyDescription",
        "RequestedProcedureDescription",
        "ProcedureCodeSequence",
        "PerformedProcedureStepDescription",
        "SeriesDescription",
        "ProtocolName",
        "AnatomicRegionSequence",
        "BodyPartExamined",
    ]


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_all_fields_of_a_file_are_read_in_any_native_syntax(syntax):
    texts = {field: f"{field[:12]} 1" for field, how in DESCRIPTION_FIELDS.items() if how == "text"}
    texts["BodyPartExamined"] = "LIVER"
    codes = {field: [code(f"{field} meaning")] for field in SEQUENCES}
    header = header_of(made(**texts, **codes, **({"TransferSyntaxUID": syntax} if syntax else {})))
    assert header.descriptions == texts | {field: f"{field} meaning" for field in SEQUENCES}
    assert header.unreadable_fields == () and header.for_labels["body_part_examined"] == "LIVER"


def test_a_file_without_any_has_none():
    assert header_of(made()).descriptions == {}


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("value", ["", " ", "\t \r\n", "\0\0", "\u200b\ufeff"], ids=ascii)
@pytest.mark.parametrize("field", [field for field, how in DESCRIPTION_FIELDS.items() if how == "text"])
def test_a_value_without_a_visible_character_is_absent(field, value):
    if field == "BodyPartExamined" and not value.isascii():
        value = " "
    assert header_of(made(SpecificCharacterSet="ISO_IR 192", **{field: value})).descriptions == {}


@pytest.mark.parametrize("write", [made, undefined_length])
@pytest.mark.parametrize("field", SEQUENCES)
def test_the_meanings_of_several_codes_are_joined_and_empty_ones_left_out(field, write):
    items = [code("US ABDOMEN"), code(None), code("  "), code("US  PELVIS ")]
    assert header_of(write(**{field: items})).descriptions == {field: "US ABDOMEN\\US PELVIS"}


@pytest.mark.parametrize("items", [[], [code(None)], [code(" "), code("")]])
def test_a_sequence_without_a_meaning_is_absent(items):
    header = header_of(made(ProcedureCodeSequence=items))
    assert (header.descriptions, header.unreadable_fields) == ({}, ())


def test_a_modifier_within_a_code_does_not_count():
    modifier = code("Left", AnatomicRegionModifierSequence=[code("Upper")])
    region = code("Liver", AnatomicRegionModifierSequence=[modifier])
    assert header_of(made(AnatomicRegionSequence=[region])).descriptions == {"AnatomicRegionSequence": "Liver"}
    assert header_of(undefined_length(AnatomicRegionSequence=[region])).descriptions == {
        "AnatomicRegionSequence": "Liver"
    }


def test_the_first_16_codes_count_and_256_characters_of_them():
    short = header_of(made(ProcedureCodeSequence=[code(f"{number:02d}") for number in range(40)]))
    assert short.descriptions["ProcedureCodeSequence"] == "\\".join(f"{number:02d}" for number in range(16))
    long = header_of(made(ProcedureCodeSequence=[code("x" * 60) for _ in range(16)]))
    assert long.descriptions["ProcedureCodeSequence"] == "\\".join(["x" * 60] * 4 + ["x" * 12])


@pytest.mark.parametrize("write", [made, undefined_length])
def test_a_code_is_read_in_its_own_character_set_or_the_file_s(write):
    inherited = write(SpecificCharacterSet="ISO_IR 192", ProcedureCodeSequence=[code("Schädel 頭")])
    assert header_of(inherited).descriptions == {"ProcedureCodeSequence": "Schädel 頭"}
    own = code("Печень", SpecificCharacterSet="ISO_IR 144")
    assert header_of(write(ProcedureCodeSequence=[own])).descriptions == {"ProcedureCodeSequence": "Печень"}


@pytest.mark.parametrize("field", ["StudyDescription", "BodyPartExamined", "Manufacturer"])
@pytest.mark.parametrize("write", [made, undefined_length])
def test_a_text_that_is_written_as_a_sequence_is_unreadable_and_quotes_nothing_of_it(field, write):
    content = write(ProcedureCodeSequence=[code("x", PatientName="DOE^JANE")])
    header = header_of(content.replace(TAGS["ProcedureCodeSequence"] + b"SQ", TAGS[field] + b"SQ"))
    assert header.unreadable_fields == (field,) and header.descriptions == {}
    assert "DOE" not in repr(header)


def test_a_sequence_that_is_written_as_a_text_is_unreadable_alone():
    content = made(StudyDescription="US LIVER", SeriesDescription="LEFT")
    content = content.replace(TAGS["StudyDescription"] + b"LO", TAGS["ProcedureCodeSequence"] + b"LO")
    header = header_of(content)
    assert header.descriptions == {"SeriesDescription": "LEFT"}
    assert header.unreadable_fields == ("ProcedureCodeSequence",)


def test_a_meaning_that_is_no_text_makes_its_sequence_unreadable():
    wrong = made(ProcedureCodeSequence=[code("US LIVER")]).replace(b"\x04\x01LO\x08\x00", b"\x04\x01US\x07\x00")
    header = header_of(wrong)
    assert header.unreadable_fields == ("ProcedureCodeSequence",) and header.descriptions == {}


def test_a_sequence_of_more_than_16_kib_is_unreadable_alone():
    for size, stated in ((2**14, {}), (2**13, {"ProcedureCodeSequence": "US LIVER"})):
        item = code("US LIVER")
        item.add_new(0x00091001, "OB", bytes(size))
        header = header_of(made(ProcedureCodeSequence=[item], ProtocolName="ABD"))
        assert header.descriptions == stated | {"ProtocolName": "ABD"}
        assert header.unreadable_fields == (() if stated else ("ProcedureCodeSequence",))


def nested(depth: int) -> bytes:
    """A value of sequences within items, all of undefined length, `depth` deep, in Explicit VR Little Endian."""
    item, sequence = b"\xfe\xff\x00\xe0" + b"\xff" * 4, TAGS["ProcedureCodeSequence"] + b"SQ\0\0" + b"\xff" * 4
    end = b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    return (item + sequence) * depth + (item + end) + end * depth


@pytest.mark.parametrize("depth", [3, 20, 40, 300, 380])
def test_nesting_costs_the_field_at_most_if_the_sequence_states_its_length(depth):
    value = nested(depth)[:-8]  # the outer sequence has a length, hence no delimiter
    assert len(value) < 2**14
    element = TAGS["ProcedureCodeSequence"] + b"SQ\0\0" + len(value).to_bytes(4, "little") + value
    content = made(StudyDescription="US LIVER")
    at = content.index(b"\x08\x00\x30\x10LO") + 16
    began = time.monotonic()
    header = header_of(content[:at] + element + content[at:])
    assert header.descriptions == {"StudyDescription": "US LIVER"} and time.monotonic() - began < 1


@pytest.mark.parametrize("depth", [3, 20, 40, 1000, 20_000])
def test_nesting_of_undefined_length_is_a_record_or_over_the_limits_soon(depth):
    element = TAGS["ProcedureCodeSequence"] + b"SQ\0\0" + b"\xff" * 4 + nested(depth)
    content = made(StudyDescription="US LIVER")
    at = content.index(b"\x08\x00\x30\x10LO") + 16
    began = time.monotonic()
    result = outcome(content[:at] + element + content[at:])
    assert isinstance(result, Header) if depth <= 40 else result == "over_limits", result
    assert time.monotonic() - began < 2


def test_a_sequence_cut_off_anywhere_is_absent_or_unreadable():
    content = made(ProcedureCodeSequence=[code("US LIVER")])
    at = content.index(TAGS["ProcedureCodeSequence"] + b"SQ")
    length = int.from_bytes(content[at + 8 : at + 12], "little")
    for kept in range(length):
        value = content[at + 12 : at + 12 + kept]
        cut = content[: at + 8] + kept.to_bytes(4, "little") + value + content[at + 12 + length :]
        result = outcome(cut)
        assert isinstance(result, Header) and result.descriptions.get("ProcedureCodeSequence", "") in "US LIVER"


@pytest.mark.parametrize("values", ["\\\\", " \\ ", ["", ""]])
def test_a_field_with_empty_values_alone_is_not_stated(values):
    found = header_of(made(StudyDescription=values, SeriesDescription="ABDOMEN")).descriptions
    assert found == {"SeriesDescription": "ABDOMEN"}
