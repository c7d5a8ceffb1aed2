"""Headers: single fields, missing fields, and complete or incomplete pixel data."""

import hashlib
import io
import random
import time
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, JPEGBaseline8Bit, RLELossless

from pipeline.dicom.header import Header, read_header
from pipeline.dicom.rejections import Rejected
from tests.pipeline.archive.synthetic import dataset, noise, write_dicom

WHEEL = Path(pydicom.data.__file__).parent / "test_files"


def header_of(content, modalities=("US",)):
    return read_header(io.BytesIO(content), len(content), modalities)


def outcome(content, modalities=("US",)):
    """A header, or why there is none."""
    try:
        return header_of(content, modalities)
    except Rejected as rejected:
        return rejected.rejection.reason.value


def made(pixels=None, **fields):
    buffer = io.BytesIO()
    dataset(noise() if pixels is None else pixels, **fields).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_fields_are_those_of_the_file():
    header = header_of(
        made(
            PatientID=" P1 ",
            IssuerOfPatientID="A",
            StudyDescription="US ABDOMEN",
            Manufacturer="MAKER",
            ManufacturerModelName="MODEL",
            TransducerType="CURVED LINEAR",
            TransducerData=["C5-1", "UNUSED"],
            NumberOfFrames=None,
            SOPInstanceUID="1.2.3",
        )
    )
    assert header == Header(
        sop_instance="1.2.3",
        series="1.2.3.4.5",
        study="1.2.3.4",
        patient_id="P1",
        issuer="A",
        sop_class="1.2.840.10008.5.1.4.1.1.6.1",
        transfer_syntax="1.2.840.10008.1.2.1",
        photometric="MONOCHROME2",
        rows=12,
        columns=16,
        frames=1,
        manufacturer="MAKER",
        model="MODEL",
        transducer_type="CURVED LINEAR",
        transducer_data="C5-1\\UNUSED",
        descriptions={"StudyDescription": "US ABDOMEN"},
        burned_in=False,
        for_labels={"modality": "US"},
        unreadable_fields=(),
    )
    assert header_of(made(BurnedInAnnotation="YES")).burned_in


@pytest.mark.parametrize(
    ("character_set", "text"), [("ISO_IR 100", "Schädel"), ("ISO_IR 192", "Schädel 頭"), ("ISO_IR 144", "Печень")]
)
def test_text_is_read_in_the_file_s_character_set(character_set, text):
    assert header_of(made(SpecificCharacterSet=character_set, StudyDescription=text)).descriptions == {
        "StudyDescription": text
    }


def test_a_bad_field_is_lost_alone_and_listed_as_unreadable():
    content = made(StudyDescription="US ABDOMEN", NumberOfFrames="7", SOPInstanceUID="1.2.3", PatientID="P1")
    content = content.replace(b"IS\x02\x007 ", b"IS\x02\x00!?").replace(b"1.2.3\0", b"1.2.x\0")
    header = header_of(content.replace(b"LO\x02\x00P1", b"US\x01\x00P"))
    assert header.frames == 1 and header.descriptions == {"StudyDescription": "US ABDOMEN"}
    assert header.unreadable_fields == ("NumberOfFrames", "PatientID", "SOPInstanceUID") and header.patient_id is None


def test_an_instance_without_a_uid_is_named_by_its_content():
    content = made(SOPInstanceUID=None)
    assert header_of(content).sop_instance == "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("written", "frames"), [("3", 3), ("3.0", 3), ("-1", 1), ("0", 1)])
def test_frames_are_counted_however_they_are_written(written, frames):
    cine = np.stack([noise(seed=n) for n in range(3)])
    content = made(cine, NumberOfFrames="9999").replace(b"IS\x04\x009999", b"IS\x04\x00" + written.ljust(4).encode())
    assert header_of(content).frames == frames


def test_ultrasound_is_recognised_by_modality_or_class():
    assert header_of(made(Modality=None)).for_labels == {}
    assert header_of(made(SOPClassUID="1.2.3")).sop_class == "1.2.3"
    assert outcome(made(Modality="CT", SOPClassUID=CTImageStorage)) == "not_ultrasound"
    assert outcome(made(PixelData=None)) == "not_an_image"
    assert outcome(made(Rows=None)) == "unreadable_header"


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    ("modalities", "stated", "result"),
    [
        (["CT", "MR"], {"Modality": "CT", "SOPClassUID": CTImageStorage}, None),
        (["CT", "MR"], {"Modality": "mr ", "SOPClassUID": "1.2.3"}, None),
        (["CT", "MR"], {}, "other_modality"),
        (["CT"], {"Modality": None, "SOPClassUID": CTImageStorage}, "other_modality"),
        (["CT", "US"], {"Modality": None}, None),
        (["CT", "US"], {"Modality": "MR", "SOPClassUID": "1.2.3"}, "other_modality"),
        (["US"], {"Modality": "MR", "SOPClassUID": "1.2.3"}, "not_ultrasound"),
    ],
)
def test_the_recipe_s_modalities_are_records_and_no_others(modalities, stated, result):
    found = outcome(made(**stated), modalities)
    assert isinstance(found, Header) if result is None else found == result


def test_fields_that_labels_are_made_of_are_read_as_texts_and_numbers():
    stated = {
        "BodyPartExamined": "CHEST",
        "ScanningSequence": ["GR", "IR"],
        "PatientPosition": "HFS",
        "ViewPosition": "AP",
        "ConvolutionKernel": ["B30f", "3"],
        "Laterality": "L",
        "ImageLaterality": "R",
        "SliceThickness": "0.625",
        "KVP": 120,
        "RepetitionTime": "4000.0",
        "EchoTime": "1e2",
        "MagneticFieldStrength": 3,
    }
    assert header_of(made(**stated)).for_labels == {
        "modality": "US",
        "body_part_examined": "CHEST",
        "scanning_sequence": "GR\\IR",
        "patient_position": "HFS",
        "view_position": "AP",
        "convolution_kernel": "B30f\\3",
        "laterality": "L",
        "image_laterality": "R",
        "slice_thickness": 0.625,
        "kvp": 120.0,
        "repetition_time": 4000.0,
        "echo_time": 100.0,
        "magnetic_field_strength": 3.0,
    }


def test_a_number_that_is_none_or_several_is_not_stated():
    content = made(SliceThickness="5.5", KVP=["80", "140"], EchoTime="", BodyPartExamined=" ")
    header = header_of(content.replace(b"DS\x04\x005.5 ", b"DS\x04\x00thin"))
    assert header.for_labels == {"modality": "US"} and header.unreadable_fields == ("SliceThickness",)


def test_pixel_data_before_the_fields_that_describe_them_are_found():
    content = made()
    start = content.index(b"\xe0\x7f\x10\x00OW" if b"\xe0\x7f\x10\x00OW" in content else b"\xe0\x7f\x10\x00OB")
    group_28 = content.index(b"\x28\x00\x02\x00US")
    shuffled = content[:group_28] + content[start:] + content[group_28:start]
    assert dcmread(io.BytesIO(shuffled)).pixel_array.shape == (12, 16)
    assert (header_of(shuffled).rows, header_of(shuffled).columns) == (12, 16)


# Whether the file is all there: pydicom is the judge of what is complete


def decodes(content):
    try:
        return dcmread(io.BytesIO(content), force=True).pixel_array is not None
    except Exception:
        return False


def one_bit():
    bits = np.arange(192, dtype=np.uint8).reshape(12, 16) % 2
    packed = np.packbits(np.stack([bits[:, :13]] * 3), bitorder="little").tobytes()  # 3 x 12 x 13 bits: 58.5 bytes
    fields = {"Columns": 13, "NumberOfFrames": 3, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    return made(bits, PixelData=packed + bytes(len(packed) % 2), **fields)


def halved_chroma():
    rgb = np.zeros((12, 16, 3), np.uint8)
    return made(rgb, PhotometricInterpretation="YBR_FULL_422", PixelData=bytes(12 * 16 * 2))


def packed(syntax=RLELossless):
    image = dataset(np.stack([noise(64, 64, seed=n) for n in range(3)]))
    image.compress(syntax)
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def fractions(double):
    values = np.linspace(-1, 1, 192).reshape(12, 16)
    image = dataset(noise(), PixelRepresentation=None, BitsStored=None, HighBit=None, PixelData=None)
    image.BitsAllocated = 64 if double else 32
    if double:
        image.DoubleFloatPixelData = values.astype("f8").tobytes()
    else:
        image.FloatPixelData = values.astype("f4").tobytes()
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


COMPLETE = {
    "native": made,
    "odd": lambda: made(noise(9, 7)),
    "deep": lambda: made(noise().astype(np.uint16)),
    "colour": lambda: made(np.zeros((12, 16, 3), np.uint8)),
    "halved chroma": halved_chroma,
    "one bit": one_bit,
    "cine": lambda: made(np.stack([noise(seed=n) for n in range(4)])),
    "run lengths": packed,
    "float": lambda: fractions(False),
    "double": lambda: fractions(True),
}


@pytest.mark.parametrize("kind", COMPLETE)
def test_a_file_is_a_record_as_long_as_pydicom_decodes_it_and_incomplete_when_it_stops(kind):
    content = COMPLETE[kind]()
    assert decodes(content) and isinstance(outcome(content), Header)
    ends = set()
    for missing in (1, 2, 3, 7, 8, 9, 12, 37, 60):
        cut = content[:-missing]
        without_delimiter = (
            kind == "run lengths" and missing <= 8
        )  # pydicom requires it, although all frames are present
        if decodes(cut) or without_delimiter:
            assert isinstance(outcome(cut), Header), missing
        else:
            assert outcome(cut) == "incomplete", missing
            ends.add(missing)
    assert 60 in ends


def test_bytes_behind_encapsulated_pixels_do_not_make_them_incomplete():
    padding = b"\xfc\xff\xfc\xffOB\0\0" + (5000).to_bytes(4, "little") + bytes(5000)
    assert isinstance(outcome(packed() + padding), Header)


def test_a_fragment_with_a_wrong_length_does_not_make_a_file_incomplete():
    content = packed()
    item = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xfe\xff\x00\xe0") + 4)
    lying = content[: item + 4] + b"\xf0\xff\xff\x00" + content[item + 8 :]
    assert isinstance(outcome(lying), Header)


def test_pixel_data_in_an_unknown_syntax_are_not_called_incomplete():
    content = made(PixelData=b"12").replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
    assert header_of(content).transfer_syntax == "1.2.840.10008.9.9.9"


# Hostile files: a header or a reason, soon


def _specimens():
    yield made(np.stack([noise(seed=n) for n in range(3)]), StudyDescription="US ABDOMEN", TransducerData=["A", "B"])
    yield packed()
    for name in ("ExplVR_BigEnd.dcm", "MR_small_RLE.dcm", "image_dfl.dcm", "nested_priv_SQ.dcm"):
        yield (WHEEL / name).read_bytes()


SPECIMENS = list(_specimens())


def is_fair(content):
    began = time.monotonic()
    result = outcome(content)
    assert isinstance(result, Header | str) and time.monotonic() - began < 2


@pytest.mark.parametrize("content", SPECIMENS, ids=range(6))
def test_a_file_cut_off_anywhere_is_a_record_or_rejected(content):
    for end in range(0, min(len(content), 12_000), 37):
        is_fair(content[:end])


@pytest.mark.parametrize("content", SPECIMENS, ids=range(6))
def test_a_file_with_any_bytes_changed_is_a_record_or_rejected(content):
    chance = random.Random(3)
    for _ in range(150):
        changed = bytearray(content)
        for _ in range(chance.choice([1, 3, 20])):
            changed[chance.randrange(min(len(content), 3000))] = chance.choice([0, 255, chance.randrange(256)])
        is_fair(bytes(changed))


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"Rows": 65535, "Columns": 65535}, "incomplete"),
        ({"NumberOfFrames": "2147483647"}, None),
        ({"BitsAllocated": 64}, "incomplete"),
        ({"BitsAllocated": 32}, "incomplete"),
        ({"BitsAllocated": 1}, None),
        ({"SamplesPerPixel": 65535}, "incomplete"),
        ({"Rows": 0}, "unreadable_header"),
        ({"PhotometricInterpretation": "NONSENSE"}, None),
    ],
)
def test_a_header_with_wrong_sizes_is_judged_by_its_pixel_data(lie, reason):
    result = outcome(made(**lie))
    assert isinstance(result, Header) if reason is None else result == reason


def test_no_reason_quotes_the_file():
    name = "DOE^JANE"
    for content in (
        made(PatientName=name, PatientID=name, Modality="CT", SOPClassUID=CTImageStorage),
        made(PatientName=name, PixelData=None),
        made(PatientName=name, PatientID=name)[:-20],
        made(PatientName=name)[:400],
    ):
        with pytest.raises(Rejected) as rejected:
            header_of(content)
        assert "DOE" not in str(rejected.value) and rejected.value.__cause__ is None


def test_jpeg_data_without_an_end_are_incomplete(tmp_path):
    smooth = np.zeros((16, 16, 3), np.uint8)
    path = write_dicom(tmp_path / "x", smooth, TransferSyntaxUID=JPEGBaseline8Bit, PixelData=encapsulate([bytes(900)]))
    content = path.read_bytes()
    assert isinstance(outcome(content), Header) and outcome(content[:-300]) == "incomplete"


@pytest.mark.parametrize("field", ["StudyDescription", "ManufacturerModelName", "TransducerData"])
@pytest.mark.parametrize(
    "between",
    [
        " ",
        "   ",
        "\u00a0",
        "\t",
        "\r\n",
        "\v",
        "\f",
        "\u2028",
        "\u202f",
        "\u3000",
        "\u200b",
        "\ufeff",
        "\u2060",
        " \u00a0\t",
    ],
    ids=ascii,
)
def test_white_space_of_any_kind_is_one_space_between_words(field, between):
    text = f"{between}LEFT{between}LOBE{between}"
    header = header_of(made(SpecificCharacterSet="ISO_IR 192", **{field: text}))
    columns = {"StudyDescription": header.descriptions.get("StudyDescription"), "ManufacturerModelName": header.model}
    columns |= {"TransducerData": header.transducer_data}
    assert columns[field] == "LEFT LOBE"


def test_a_patient_id_keeps_the_spelling_of_its_pseudonym():
    assert header_of(made(PatientID=" 12  34 ", IssuerOfPatientID="A  B")).patient_id == "12  34"
    assert header_of(made(PatientID="1", IssuerOfPatientID="A  B")).issuer == "A  B"
