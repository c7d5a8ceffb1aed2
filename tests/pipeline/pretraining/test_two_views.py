"""Batches of two views: order, pairs and labels; the same on resuming, whatever loads the images.

Belongs here: which images a batch holds, as what views. Not here: the views themselves (tests/pipeline/images).
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.images.batches import Normalization
from pipeline.images.views import draw_noise, draw_views
from pipeline.methods import TrainingSettings
from pipeline.methods.metadata_pairs import MetadataPairsSettings
from pipeline.pretraining.dataset import training_batches
from pipeline.pretraining.two_views import TwoViews
from pipeline.settings import Augmentation
from pipeline.training.seeds import generator
from tests.pipeline.pretraining.conftest import make_pool
from tests.pipeline.pretraining.test_dataset import streamed

NORMALIZATION = Normalization(50.0, 40.0)
SETTINGS = MetadataPairsSettings(batch_size=4)
UNCHANGED = MetadataPairsSettings(
    batch_size=4,
    view_crop=1,
    view_flip=False,
    view_gain=0,
    view_depth_gain=0,
    view_gamma=0,
    view_speckle=0,
    view_shadow=0,
)
FIELDS = ("x_M1HW", "labels_NL", "known_NL", "patients_N")


def numbered(patients, train):
    """Images that are all of one level, their own number, so that a view says which image it is of."""
    pool = make_pool(count=len(patients), train=train)
    levels = torch.arange(len(patients), dtype=torch.uint8)[:, None, None].expand(-1, 32, 32).contiguous()
    images = replace(pool.images, images_NHW=levels)
    return replace(pool, images=images, patients_N=torch.tensor(patients))


def images_of(batch):
    """The numbers of the images of first and second views."""
    levels = (batch.x_M1HW.mean(dim=(1, 2, 3)) * NORMALIZATION.sd + NORMALIZATION.mean).round().int()
    return np.array(levels.unflatten(0, (2, -1)).tolist())


def same(batches, others):
    pairs = list(zip(batches, others, strict=True))
    return all(torch.equal(getattr(one, name), getattr(other, name)) for one, other in pairs for name in FIELDS)


def epoch(pool, settings=SETTINGS, number=1, first_step=0, group=None):
    return list(TwoViews(pool, NORMALIZATION, settings, group).training(number, first_step))


def test_both_views_are_of_the_images_that_every_other_method_sees_in_this_step():
    pool = make_pool(count=20, train=18)
    still = TrainingSettings(batch_size=4, augmentation=Augmentation(horizontal_flip=False, shift=0))
    batches = zip(epoch(pool, UNCHANGED), training_batches(pool, NORMALIZATION, still, 1), strict=True)
    for views, batch in batches:
        first, second = views.x_M1HW.unflatten(0, (2, -1))
        np.testing.assert_allclose(first, batch.x_N1HW, atol=1e-4)
        np.testing.assert_allclose(second, batch.x_N1HW, atol=1e-4)
        assert torch.equal(views.labels_NL, batch.labels_NL) and torch.equal(views.known_NL, batch.known_NL)


def test_the_views_of_an_epoch_are_those_drawn_for_it_from_its_seed_and_rank():
    pool, order = replace(make_pool(), rank=3), generator(0, "order", 1, 3)
    chosen = pool.train[torch.randperm(12, generator=order)].view(3, 4)
    drawn = list(draw_views(24, 32, SETTINGS, generator(0, "views", 1, 3)).batches(8))
    noise = draw_noise(32, 32, generator(0, "speckle", 1, 3))
    for index, parameters, batch in zip(chosen, drawn, epoch(pool), strict=True):
        grey = parameters.apply(pool.images.images_NHW[index.repeat(2)], noise)
        assert torch.equal(batch.x_M1HW[:, 0], (grey - 50) / 40)
        assert torch.equal(batch.patients_N, pool.patients_N[index])


@pytest.mark.parametrize("paired", [False, True])
def test_an_epoch_resumed_at_any_step_continues_bit_for_bit(paired):
    pool = make_pool(count=20, train=18)
    group = pool.patients_N if paired else None
    whole = epoch(pool, group=group)
    assert len(whole) == 4
    for step in range(5):
        assert same(epoch(pool, group=group, first_step=step), whole[step:])


def test_batches_do_not_depend_on_what_loads_the_images_or_on_threads():
    pool = make_pool(count=20, train=18)
    assert same(epoch(streamed(pool), group=pool.patients_N), epoch(pool, group=pool.patients_N))
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        other = epoch(pool)
    finally:
        torch.set_num_threads(threads)
    assert same(epoch(pool), other)


def test_another_epoch_seed_or_rank_has_other_views():
    pool = make_pool()
    others = [
        epoch(pool),
        epoch(pool, number=2),
        epoch(pool, SETTINGS.model_copy(update={"seed": 1})),
        epoch(replace(pool, rank=1)),
    ]
    assert not any(same(one, other) for one, other in pairwise(others))


PATIENTS = [0, 0, 0, 1, 1, 2, 0, 1, 3, 3, 3, 4]
"""Of twelve images, the last four of which are for validation."""


def test_the_second_view_is_of_another_image_of_the_group_on_the_same_side():
    pool = numbered(PATIENTS, train=8)
    seen = set()
    for number in range(1, 30):
        for batch in epoch(pool, UNCHANGED, number, group=pool.patients_N):
            for first, second in images_of(batch).T.tolist():
                assert PATIENTS[first] == PATIENTS[second] and second < 8
                assert (first != second) == (first != 5), "the only image of its patient is its own pair"
                seen.add((first, second))
    of_patients = ((0, 1, 2, 6), (3, 4, 7))
    assert seen == {(a, b) for images in of_patients for a in images for b in images if a != b} | {(5, 5)}


def test_every_image_is_a_first_view_once_in_an_epoch():
    pool = numbered(PATIENTS, train=8)
    firsts = np.concatenate([images_of(batch)[0] for batch in epoch(pool, UNCHANGED, group=pool.patients_N)])
    assert sorted(firsts) == list(range(8))


def test_validation_is_the_same_each_time_in_whole_batches_of_paired_images():
    pool = numbered([0] * 4 + [1, 1, 2, 2, 3, 3, 4, 4, 5], train=2)
    views = TwoViews(pool, NORMALIZATION, UNCHANGED, pool.patients_N)
    batches = list(views.validation())
    assert same(views.validation(), batches)
    assert [batch.x_M1HW.shape[0] for batch in batches] == [8, 8]
    pairs = np.concatenate([images_of(batch) for batch in batches], axis=1)
    assert len(set(pairs[0])) == 8 and pairs.min() >= 2
    patients = pool.patients_N.numpy()
    assert (patients[pairs[0]] == patients[pairs[1]]).all()


def test_validation_images_that_fill_no_batch_are_one_batch():
    (batch,) = TwoViews(make_pool(), NORMALIZATION, SETTINGS.model_copy(update={"batch_size": 9})).validation()
    assert batch.x_M1HW.shape == (8, 1, 32, 32)
