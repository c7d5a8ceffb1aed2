"""Which header field describes a study: the order of the recipe, what is published, what stays private."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.archive import header_reader, scan
from pipeline.archive.cache_builder import build_cache
from pipeline.archive.erase import erase_patient
from pipeline.archive.header_reader import index_row
from pipeline.archive.identifier_scan import RecipeTexts, scan_for_identifiers, shareable_paths
from pipeline.archive.listing import known_files
from pipeline.archive.scan import Index, index_archive
from pipeline.dicom.header import Header
from pipeline.files import read_table
from pipeline.label_fields import DESCRIPTION_FIELDS
from pipeline.privacy.descriptions import rare_descriptions, with_rare_descriptions
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, REJECTED_FILES
from tests.pipeline.archive.synthetic import KEY, noise, write_dicom
from tests.pipeline.dicom.test_description_fields import code
from tests.pipeline.dicom.test_header import header_of, made

EVERY = tuple(DESCRIPTION_FIELDS)


def index(folder: Path, *descriptions: str, patients: int = 1) -> Index:
    """The index of folder/archive, described by those fields, or by the default."""
    chosen = {"descriptions": descriptions} if descriptions else {}
    settings = Archive(description_patients=patients, **chosen)
    return index_archive(str(folder / "archive"), folder / "private", KEY, settings)


def add(folder: Path, patient: str, **fields: object) -> None:
    """Write a file of this patient into folder/archive."""
    number = sum(1 for _ in folder.rglob("*.dcm"))
    write_dicom(folder / "archive" / f"{number}.dcm", noise(40, 60, seed=number), PatientID=patient, **fields)


def described(records: pa.Table) -> list[tuple[str | None, str | None]]:
    """Description and its field of each record, in any order."""
    pairs = zip(*(records[name].to_pylist() for name in ("study_description", "described_by")), strict=True)
    return sorted(pairs, key=str)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Three patients: one with every field, one with a part of them, one with none."""
    texts = {field: f"BY {field}" for field, how in DESCRIPTION_FIELDS.items() if how == "text"}
    codes = {field: [code(f"BY {field}")] for field, how in DESCRIPTION_FIELDS.items() if how == "codes"}
    add(tmp_path, "P1", **texts | codes | {"BodyPartExamined": "LIVER"})
    add(tmp_path, "P2", StudyDescription=" ", SeriesDescription="Abdomen", BodyPartExamined="KIDNEY")
    add(tmp_path, "P3")
    return tmp_path


def test_the_first_field_of_the_list_that_a_file_states_describes_it(clinic: Path) -> None:
    for first in EVERY:
        text = "LIVER" if first == "BodyPartExamined" else f"BY {first}"
        other = ("KIDNEY", first) if first == "BodyPartExamined" else ("Abdomen", "SeriesDescription")
        rest = (field for field in EVERY if field != first)
        assert described(index(clinic, first, *rest).records) == sorted([(text, first), other, (None, None)], key=str)


def test_the_default_is_the_study_description_alone(clinic: Path) -> None:
    expected = [("BY StudyDescription", "StudyDescription"), (None, None), (None, None)]
    assert described(index(clinic).records) == expected
    assert Archive().descriptions == ("StudyDescription",)


def test_another_list_reads_no_file_and_decodes_no_image(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cache(found: Index, settings: Archive) -> int:
        folders = str(clinic / "archive"), clinic / "private", KEY, clinic / "images"
        return build_cache(found.records, *folders, Images(height=32, width=64), settings).decoded

    first = index(clinic)
    assert first.read == 3 and cache(first, Archive()) == 3
    monkeypatch.setattr(header_reader, "read_header", None)
    monkeypatch.setattr(scan, "each_in_worker", lambda work, items, readable: map(work, items))
    later = index(clinic, *reversed(EVERY))
    assert later.read == 0 and described(later.records)[:2] == [
        ("KIDNEY", "BodyPartExamined"),
        ("LIVER", "BodyPartExamined"),
    ]
    assert cache(later, Archive(descriptions=tuple(reversed(EVERY)))) == 0
    assert index(clinic).records.equals(first.records)


def test_a_list_of_an_earlier_version_is_read_once_and_the_tables_stay(clinic: Path) -> None:
    """Version 7 kept StudyDescription alone, in a column of its own."""
    before = index(clinic)
    known = pq.read_table(clinic / "private" / "scan.parquet")
    texts = pa.array([None] * known.num_rows, pa.string()).dictionary_encode()
    earlier = known.drop_columns("descriptions").append_column("study_description", texts)
    metadata = known.schema.metadata | {b"code": b"7"}
    pq.write_table(earlier.replace_schema_metadata(metadata), clinic / "private" / "scan.parquet")
    upgraded = index(clinic)
    assert upgraded.read == 3 and index(clinic).read == 0
    assert upgraded.records.equals(before.records) and upgraded.rejected.equals(before.rejected)
    assert known_files(clinic / "private").equals(known)


def test_patients_are_counted_by_text_whichever_field_it_is_from(tmp_path: Path) -> None:
    add(tmp_path, "P1", StudyDescription="US LIVER")
    add(tmp_path, "P2", SeriesDescription="us  liver")
    add(tmp_path, "P3", ProcedureCodeSequence=[code("US Liver")])
    add(tmp_path, "P4", SeriesDescription="FOR MRS MILLER")
    add(tmp_path, "P5", StudyDescription="US LIVER", SeriesDescription="FOR MRS MILLER")
    fields = ("StudyDescription", "ProcedureCodeSequence", "SeriesDescription")
    records = index(tmp_path, *fields, patients=4).records
    shared = [(None, None), ("US LIVER", "StudyDescription"), ("US LIVER", "StudyDescription")]
    of_codes, of_series = ("US Liver", "ProcedureCodeSequence"), ("us liver", "SeriesDescription")
    assert described(records) == sorted([*shared, of_codes, of_series], key=str)
    filled, rare = with_rare_descriptions(tmp_path / "private", records)
    assert rare.to_pylist().count(True) == 1
    assert ("FOR MRS MILLER", "SeriesDescription") in described(filled)
    assert rare_descriptions(tmp_path / "private") == {"FOR MRS MILLER": "SeriesDescription"}
    assert index(tmp_path, *fields, patients=5).records["described_by"].null_count == 5


def test_a_field_that_was_not_chosen_is_in_the_private_list_alone(clinic: Path) -> None:
    found = index(clinic)
    assert "Abdomen" in str(known_files(clinic / "private")["descriptions"].to_pylist())
    for table in (found.records, found.rejected, read_table(clinic / "private" / "descriptions.parquet")):
        assert not any(
            text in str(table.to_pylist()) for text in ("Abdomen", "BY SeriesDescription", "BY ProtocolName")
        )


def test_forgetting_a_patient_removes_all_fields_from_the_private_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    for patient in ("P1", "P2"):
        add(
            tmp_path,
            patient,
            StudyDescription=f"US {patient}",
            SeriesDescription=f"LEFT {patient}",
            ProtocolName=patient,
        )
    (tmp_path / "private").symlink_to(store.private)
    found = index(tmp_path, "SeriesDescription", patients=2)
    DICOM_INDEX.write(store.tables, found.records)
    REJECTED_FILES.write(store.tables, found.rejected)
    names = ("scan.parquet", "descriptions.parquet")
    assert all(b"LEFT P1" in stored(store.private / name) for name in names)
    erase_patient(store, KEY, "P1", None)
    for name in names:
        assert not any(text in stored(store.private / name) for text in (b"US P1", b"LEFT P1", b'"P1"')), name
        assert b"LEFT P2" in stored(store.private / name)


def stored(path: Path) -> bytes:
    """All bytes of a Parquet file's texts without compression, also those of its dictionaries that no row has."""
    table = pq.read_table(path, read_dictionary=["descriptions"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def searched(tmp_path: Path) -> Store:
    """A store of an archive whose fields, of six patients, describe their files in this order."""
    store = Store(tmp_path / "store").open()
    (tmp_path / "private").symlink_to(store.private)
    for number in range(5):
        add(tmp_path / "archive" / "Abdomen 3D", f"COMMON-{number}", SeriesDescription="ABDOMEN  3D")
    add(tmp_path, "SIXTH-1", ProtocolName="For Doctor Sentinelmann", BodyPartExamined="THYROID")
    add(tmp_path, "SEVENTH-1", BodyPartExamined="PANCREAS")
    DICOM_INDEX.write(store.tables, index(tmp_path, *CHOSEN, patients=5).records)
    return store


CHOSEN = ("StudyDescription", "SeriesDescription", "ProtocolName", "BodyPartExamined")


def findings(store: Store, *descriptions: str) -> set[tuple[str, str]]:
    archive, known = str(store.root.parent / "archive"), RecipeTexts(descriptions=descriptions)
    result = scan_for_identifiers(archive, store.private, shareable_paths(store, []), known)
    return {(one.file, one.kind) for one in result.findings}


def test_a_rare_text_of_any_field_is_searched_under_its_keyword(searched: Store) -> None:
    records = DICOM_INDEX.read(searched.tables)
    assert described(records)[0] == ("ABDOMEN 3D", "SeriesDescription") and records["described_by"].null_count == 2
    assert rare_descriptions(searched.private) == {"For Doctor Sentinelmann": "ProtocolName"}
    assert findings(searched, *CHOSEN) == set()
    log = searched.root / "dagster" / "event.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("seen: for doctor sentinelmann, PANCREAS", encoding="utf-8")
    assert findings(searched, *CHOSEN) == {("dagster/event.log", "ProtocolName")}


def test_a_folder_may_be_called_like_a_shared_description_of_any_field(searched: Store) -> None:
    assert findings(searched, *CHOSEN) == set()
    assert findings(searched, "StudyDescription") == {("tables/dicom_index.parquet", "path")}


def test_what_a_hostile_worker_sends_as_descriptions_is_a_text_or_no_row() -> None:
    def row(descriptions: object) -> str:
        header = header_of(made())
        values = {name: getattr(header, name) for name in Header.__slots__}
        return str(index_row(Header(**values | {"descriptions": descriptions}), KEY)["descriptions"])

    assert row({"StudyDescription": ["x"]}) == '{"StudyDescription": "[\'x\']"}'
    for wrong in (None, 7, ["x"]):
        with pytest.raises(AttributeError):
            row(wrong)
