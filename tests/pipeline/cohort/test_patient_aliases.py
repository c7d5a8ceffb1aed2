"""Patients of a labelled set are found in the archive regardless of issuer, and by other names in a study."""

import pytest

from pipeline.cohort.patient_aliases import patient_aliases
from pipeline.files import read_table, write_table
from pipeline.privacy.identity import number_pseudonym, pseudonym
from tests.pipeline.archive.synthetic import KEY, index_folder, noise, write_dicom

STUDY = {"StudyInstanceUID": "1.7", "SeriesInstanceUID": "1.7.1"}


def archive_of(folder, *files):
    """The index of an archive of these files, each with a study of its own unless it names one."""
    for number, fields in enumerate(files):
        study = {"StudyInstanceUID": f"1.9.{number}", "SeriesInstanceUID": f"1.9.{number}.1"}
        write_dicom(folder / "archive" / f"{number}", noise(seed=number), **(study | fields))
    return index_folder(folder / "archive", folder / "private").records


def names(folder, records, identity):
    patient = pseudonym(KEY, "patient", identity)
    return patient_aliases(folder / "private", records, [patient])[patient]


@pytest.mark.parametrize("spelled", ["PAT7", "pat7", " PAT7 ", "Pat7"])
@pytest.mark.parametrize("issuer", [None, "HOSP"])
def test_a_number_is_found_with_and_without_issuer_in_any_case(tmp_path, spelled, issuer):
    records = archive_of(tmp_path, {"PatientID": "PAT7", "IssuerOfPatientID": issuer}, {"PatientID": "PAT8"})
    identity = f"{issuer}\\PAT7" if issuer else "PAT7"
    assert number_pseudonym(KEY, spelled) in names(tmp_path, records, identity)
    assert number_pseudonym(KEY, spelled) not in names(tmp_path, records, "PAT8")


def test_numbers_that_differ_in_more_than_case_and_spaces_are_other_patients(tmp_path):
    records = archive_of(tmp_path, {"PatientID": "0007", "IssuerOfPatientID": "HOSP"})
    known = names(tmp_path, records, "HOSP\\0007")
    assert number_pseudonym(KEY, "0007") in known
    assert not known & {number_pseudonym(KEY, other) for other in ("7", "007", "00 07", "HOSP")}


def test_a_file_without_a_number_is_identified_by_the_number_of_its_study(tmp_path):
    files = ({"PatientID": None} | STUDY, {"PatientID": "PAT7", "IssuerOfPatientID": "HOSP"} | STUDY)
    records = archive_of(tmp_path, *files)
    assert number_pseudonym(KEY, "PAT7") in names(tmp_path, records, "study\\1.7")


def test_a_store_of_an_older_version_still_compares_pseudonyms(tmp_path):
    records = archive_of(tmp_path, {"PatientID": "PAT7"})
    path = tmp_path / "private" / "patients.parquet"
    write_table(path, read_table(path).drop_columns(["number"]))
    patient = pseudonym(KEY, "patient", "PAT7")
    assert names(tmp_path, records, "PAT7") == {patient}
