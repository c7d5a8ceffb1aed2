"""The numbers of sources: by patients, not by images; ties by name."""

from pipeline.source_numbers import source_numbers


def test_the_source_of_the_most_patients_is_1() -> None:
    folders = [b"anna", b"anna", b"anna", b"berta", b"berta", b"", b"zoe", b"zoe"]
    patients = ["p", "p", "p", "q", "r", "s", "t", "u"]
    assert source_numbers(folders, patients) == [3 + 1, 4, 4, 1, 1, 3, 2, 2]


def test_a_patient_counts_in_every_source_that_has_images_of_it() -> None:
    assert source_numbers([b"b", b"a", b"a"], ["p", "p", "q"]) == [2, 1, 1]
