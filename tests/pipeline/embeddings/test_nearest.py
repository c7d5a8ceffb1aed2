"""Nearest neighbours against a search of all pairs."""

import numpy as np
import pytest

from pipeline.embeddings.nearest import nearest


@pytest.mark.parametrize("same_patient", [False, True])
def test_neighbours_are_those_of_a_search_of_all_pairs(same_patient: bool) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(30, 6)).astype(np.float32)
    patients = [f"p{number}" for number in random.integers(0, 7, 30)]
    for image, found in enumerate(nearest(vectors, patients, 4, same_patient)):
        expected = sorted(
            (
                (-float(vectors[image] @ v / np.sqrt((vectors[image] ** 2).sum() * (v**2).sum())), other)
                for other, v in enumerate(vectors)
                if other != image and (patients[other] == patients[image]) == same_patient
            ),
        )[:4]
        assert [other for other, _ in found] == [other for _, other in expected]
        assert [similarity for _, similarity in found] == pytest.approx([-one for one, _ in expected], abs=1e-5)


def test_of_one_patient_there_is_no_neighbour_of_another() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert nearest(vectors, ["a"] * 3, 2, same_patient=False) == [[], [], []]
    assert [len(found) for found in nearest(vectors, ["a", "a", "b"], 2, same_patient=True)] == [1, 1, 0]
