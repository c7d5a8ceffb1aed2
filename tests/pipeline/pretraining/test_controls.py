"""Labels of controls: shuffled ones are independent of their image, sources depend only on its folder."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.methods.simclr import SIMCLR
from pipeline.pretraining.controls import (
    with_label_variant,
    with_shuffled_labels,
    with_sources_as_labels,
    without_source,
)
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.plan import planned_encoders
from pipeline.pretraining.pretrain import fingerprint_of
from pipeline.recipe import Recipe
from pipeline.store import Experiment
from tests.pipeline.pretraining.conftest import make_pool


def not_asked():
    raise AssertionError("sources are read only if they are shown")


@pytest.fixture
def clinic() -> PretrainingSet:
    """60 patients of four images with one label vector each; those of the first 48 train."""
    pool = make_pool(240, 192)
    patients_N = torch.arange(240) // 4
    labels_NL = (torch.rand(60, 3, generator=torch.Generator().manual_seed(1)) > 0.5).float()[patients_N]
    known_NL = torch.ones(240, 3, dtype=torch.bool)
    known_NL[patients_N == 7] = False
    return replace(pool, patients_N=patients_N, labels_NL=labels_NL * known_NL, known_NL=known_NL)


def rows(pool, side):
    """Labels of a side's images, None if unknown."""
    return [
        tuple(
            value if known else None
            for value, known in zip(pool.labels_NL[i].tolist(), pool.known_NL[i].tolist(), strict=True)
        )
        for i in side.tolist()
    ]


def test_shuffling_keeps_the_number_of_each_label_on_each_side(clinic):
    shuffled = with_shuffled_labels(clinic, 0)
    for side in (clinic.train, clinic.val):
        assert Counter(rows(shuffled, side)) == Counter(rows(clinic, side))
    assert rows(shuffled, clinic.train) != rows(clinic, clinic.train)


def test_patients_of_equal_size_exchange_their_label_vectors(clinic):
    shuffled = with_shuffled_labels(clinic, 0)
    by_patient = shuffled.labels_NL.view(60, 4, 3)
    assert (by_patient == by_patient[:, :1]).all()
    assert (shuffled.known_NL[clinic.patients_N == 7]).all(), "with the labels goes whether they are known"
    assert (~shuffled.known_NL).all(dim=1).sum() == 4


def test_shuffled_labels_are_independent_of_the_image():
    """Over many seeds the first label agrees with its own image's as often as two images drawn at random do."""
    pool = make_pool(40, 30)
    own = pool.labels_NL[pool.train, 0]
    agreed = np.mean([
        (with_shuffled_labels(pool, seed).labels_NL[pool.train, 0] == own).float().mean().item() for seed in range(300)
    ])  # fmt: skip
    share = own.mean().item()
    assert agreed == pytest.approx(share**2 + (1 - share) ** 2, abs=0.03)


def test_the_shuffle_depends_on_the_seed(clinic):
    one, again, other = (with_shuffled_labels(clinic, seed) for seed in (1, 1, 2))
    assert torch.equal(one.labels_NL, again.labels_NL) and one.label_digest == again.label_digest
    assert len({one.label_digest, other.label_digest, clinic.label_digest}) == 3
    assert not torch.equal(one.labels_NL, other.labels_NL)


def test_images_split_and_their_digest_are_unchanged(clinic):
    for control in (with_shuffled_labels(clinic, 0), with_sources_as_labels(clinic, [b"a"] * 240)):
        assert control.images is clinic.images
        assert control.image_digest == clinic.image_digest
        assert torch.equal(control.train, clinic.train) and torch.equal(control.patients_N, clinic.patients_N)


def test_each_source_is_a_numbered_label_that_is_known_for_every_image():
    pool = make_pool(5, 3)
    shown = with_sources_as_labels(pool, [b"b\xff", b"a", b"c", b"a", b"b\xff"])
    assert shown.label_names == ("source 1", "source 2", "source 3")
    assert shown.labels_NL.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert shown.known_NL.all()
    with pytest.raises(ValueError, match="4 sources of 5 images"):
        with_sources_as_labels(pool, [b"a"] * 4)


def test_the_labels_shown_are_named_and_sources_are_read_only_if_needed(clinic):
    assert with_label_variant("own", clinic, 0, not_asked) is clinic
    assert with_label_variant("shuffled", clinic, 0, not_asked).shown == "shuffled"
    assert with_label_variant("source", clinic, 0, lambda: [b"a"] * 240).shown == "source"


def test_without_a_source_its_images_are_on_neither_side_and_all_others_stay(clinic):
    """Patients 0 to 39 are of Berta, 20 to 59 of Anna: those in between of both, by the parity of the image."""
    folders = [
        b"Berta" if patient < 20 or (patient < 40 and image % 2) else b"Anna"
        for image, patient in enumerate(clinic.patients_N.tolist())
    ]
    folders[239] = b"Zoe"
    reduced = {number: without_source(clinic, folders, number) for number in (1, 2, 3)}
    names = {1: b"Anna", 2: b"Berta", 3: b"Zoe"}  # 40 patients each: by name
    for number, pool in reduced.items():
        assert pool.without_source == number
        for side in ("train", "val"):
            kept = [i for i in getattr(clinic, side).tolist() if folders[i] != names[number]]
            assert getattr(pool, side).tolist() == kept
    assert len(reduced[3].val) == len(clinic.val) - 1
    assert (
        len({fingerprint_of("resnet50", "simclr", pool, SIMCLR.settings()) for pool in (clinic, *reduced.values())})
        == 4
    )
    assert {pool.image_digest for pool in reduced.values()} == {clinic.image_digest}


def test_shuffled_labels_of_the_reduced_pool_are_those_of_its_own_patients(clinic):
    reduced = without_source(clinic, [b"a" if n < 100 else b"b" for n in range(240)], 2)
    shuffled = with_label_variant("shuffled", reduced, 0, not_asked)
    assert Counter(rows(shuffled, shuffled.train)) == Counter(rows(clinic, reduced.train))
    assert shuffled.archive.train.tolist() == shuffled.train.tolist() == reduced.train.tolist()


def test_a_variant_of_a_recipe_is_shown_the_pool_without_its_source(clinic, tmp_path):
    variants = {
        "away": {"method": "dcm", "labels": "source", "without_source": 1},
        "far": {"method": "ce", "epochs": 2},
    }
    recipe = Recipe.model_validate({"name": "a", "pretraining": {"backbones": ["resnet50"], "variants": variants}})
    away, far = (planned_encoders(recipe, Experiment(tmp_path), encoder=name)[0] for name in variants)
    shown = away.pool(clinic, lambda: [b"a" if n < 220 and n % 8 < 4 else b"b" for n in range(240)])
    assert (shown.without_source, shown.shown, shown.label_names) == (1, "source", ("source 1", "source 2"))
    assert {n % 8 < 4 for n in shown.train.tolist()} == {True}  # b has a patient more
    assert far.pool(clinic, not_asked) is clinic


@pytest.mark.parametrize(
    ("number", "folders", "says"),
    [
        (3, [b"a"] * 200 + [b"b"] * 40, "without_source is 3, but the pool has 2 sources"),
        (1, [b"a"] * 240, "without_source 1 leaves the pool no training image"),
        (2, [b"a"] * 192 + [b"b"] * 48, "without_source 2 leaves the pool no validation image"),
    ],
)
def test_a_source_that_is_not_there_or_is_a_whole_side_is_refused(clinic, number, folders, says):
    with pytest.raises(UserError, match=says):
        without_source(clinic, folders, number)


def test_the_digest_covers_names_labels_and_which_are_known():
    """Encoders are found again by it: it must not change."""
    pool = make_pool(4, 2)
    shown = with_sources_as_labels(pool, [b"a", b"b", b"a", b"a"])
    labels = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32).tobytes()
    assert shown.label_digest == digest(["source 1", "source 2"], labels, np.ones((4, 2), bool).tobytes())
