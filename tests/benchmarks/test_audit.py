"""The benchmark of the audit: which labels its draws swap, and its control."""

from types import SimpleNamespace

import numpy as np

from benchmarks import audit


def pool(persons: int) -> SimpleNamespace:
    """Two images of one study for each person; every second person has the first label, the others the second."""
    owner = np.repeat(np.arange(persons), 2)
    labels = np.stack([owner % 2, 1 - owner % 2], 1).astype(float)
    return SimpleNamespace(labels=labels, persons=[f"p{one}" for one in owner], studies=[f"s{one}" for one in owner])


def test_a_draw_passes_on_the_labels_of_a_twentieth_of_the_persons() -> None:
    before = pool(100)
    labels, wrong = audit.swapped(before, np.random.default_rng(3))
    changed = {study for study, same in zip(before.studies, (labels == before.labels).all(1), strict=True) if not same}
    assert changed == wrong and 0 < len(wrong) <= 5
    assert labels.sum(0).tolist() == before.labels.sum(0).tolist()  # passed on, and none is lost
    assert (before.labels == pool(100).labels).all()


def test_the_control_ranks_the_rarest_groups_first() -> None:
    three = SimpleNamespace(studies=["a", "b", "c"])
    labels = np.array([[1.0, 0], [0, 1], [1, 0]])
    assert audit._rarity(three, labels, ["a", "b", "c"]).round(3).tolist() == [0.333, 0.667, 0.333]
