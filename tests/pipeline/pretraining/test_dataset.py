"""The pretraining set: its batches, the start of an epoch, shards of whole patients.

Belongs here: what methods train on, checked in NumPy. Not here: what they learn from it.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.images.batches import Normalization, draw_augmentation
from pipeline.images.loader import StreamingLoader
from pipeline.methods import TrainingSettings
from pipeline.pretraining.dataset import training_batches, validation_batches
from pipeline.training.seeds import generator
from tests.pipeline.images.test_loader import streaming_threads
from tests.pipeline.pretraining.conftest import make_pool

NORMALIZATION = Normalization(50.0, 40.0)
SETTINGS = TrainingSettings(batch_size=4)


def streamed(pool, workers=2):
    images = StreamingLoader(pool.images.images_NHW, torch.device("cpu"), workers)
    return replace(pool, images=images)


def same(batches, others):
    fields = ("x_N1HW", "labels_NL", "known_NL")
    pairs = list(zip(batches, others, strict=True))
    return all(torch.equal(getattr(one, name), getattr(other, name)) for one, other in pairs for name in fields)


def epoch(pool, number=1, **options):
    return list(training_batches(pool, NORMALIZATION, SETTINGS, number, **options))


class Asked:
    """Images that record which rows were requested."""

    def __init__(self, images):
        self.images, self.indices = images, []

    def __getattr__(self, name):
        return getattr(self.images, name)

    def batches(self, index_batches):
        index_batches = list(index_batches)
        self.indices += [index.tolist() for index in index_batches]
        return self.images.batches(index_batches)


def test_an_image_is_augmented_as_drawn_z_scored_and_has_its_own_labels():
    pool = make_pool(count=20, train=16)
    watched = replace(pool, images=Asked(pool.images))
    batches = epoch(watched)
    order = np.concatenate(watched.images.indices)
    augmentation = draw_augmentation(16, 32, 32, SETTINGS.augmentation, generator(SETTINGS.seed, "moves", 1, 0))
    assert sorted(order) == list(range(16))
    images = pool.images.images_NHW.numpy().astype(np.float64)
    x = torch.cat([batch.x_N1HW for batch in batches]).numpy()
    for place, image in enumerate(order):
        expected = np.zeros((32, 32))
        source = images[image][:, ::-1] if augmentation.flip_N[place] else images[image]
        down, right = int(augmentation.down_N[place]), int(augmentation.right_N[place])
        for row in range(max(down, 0), 32 + min(down, 0)):
            for column in range(max(right, 0), 32 + min(right, 0)):
                expected[row, column] = source[row - down, column - right]
        np.testing.assert_allclose(x[place, 0], (expected - 50) / 40, atol=1e-6)
    labels = torch.cat([batch.labels_NL for batch in batches]).numpy()
    np.testing.assert_array_equal(labels, pool.labels_NL.numpy()[order] * pool.known_NL.numpy()[order])


@pytest.mark.parametrize("first_step", [0, 1, 2, 3])
def test_an_epoch_resumed_at_a_step_yields_the_same_bits_and_reads_no_earlier_image(first_step):
    pool = make_pool()
    whole = replace(pool, images=Asked(pool.images))
    later = replace(pool, images=Asked(pool.images))
    assert same(epoch(later, first_step=first_step), epoch(whole)[first_step:])
    assert later.images.indices == whole.images.indices[first_step:]
    assert len(whole.images.indices) == 3


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_loader_workers_changes_nothing(workers):
    pool = make_pool(count=40, train=30)
    fed = streamed(pool, workers)
    assert same(epoch(fed), epoch(pool))
    both = (list(validation_batches(one, NORMALIZATION, 3)) for one in (fed, pool))
    assert same(*both)


def test_an_abandoned_epoch_leaves_no_thread_behind():
    batches = training_batches(streamed(make_pool(count=60, train=50)), NORMALIZATION, SETTINGS, 1)
    next(batches)
    assert streaming_threads()
    del batches
    assert not streaming_threads()


def test_a_set_moved_to_a_device_is_the_same_set():
    pool = make_pool()
    there = pool.to(torch.device("cpu"))
    assert same(epoch(there), epoch(pool))
    assert (there.size, there.label_names, there.image_digest) == (pool.size, pool.label_names, pool.image_digest)


def uneven_pool():
    """Patients of 1 to 9 images, in mixed order, 45 for training and 15 for validation."""
    pool = make_pool(count=60, train=45)
    patients = np.repeat(np.arange(14), [9, 8, 7, 6, 5, 4, 3, 2, 1, 5, 4, 3, 2, 1])
    patients[:45] = np.random.default_rng(0).permutation(patients[:45])
    return replace(pool, patients_N=torch.from_numpy(patients))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shards_are_whole_patients_and_together_the_set(world):
    pool = uneven_pool()
    shards = [pool.shard(rank, world) for rank in range(world)]
    for side in ("train", "val"):
        parts = [getattr(shard, side) for shard in shards]
        assert torch.equal(torch.cat(parts).sort().values, getattr(pool, side))
        owners = [set(pool.patients_N[part].tolist()) for part in parts]
        assert sum(map(len, owners)) == len(set.union(*owners)), "a patient is on two ranks"
        assert all(torch.equal(part, part.sort().values) for part in parts)
    again = [pool.shard(rank, world) for rank in range(world)]
    assert all(torch.equal(one.train, other.train) for one, other in zip(shards, again, strict=True))


def test_shards_have_about_equally_many_images():
    """By hand: 9+4+3, 8+5+2 and 7+6+1 of training; 5, 4+1 and 3+2 of validation."""
    shards = [uneven_pool().shard(rank, 3) for rank in range(3)]
    assert [len(shard.train) for shard in shards] == [16, 15, 14]
    assert [len(shard.val) for shard in shards] == [5, 5, 5]


def test_every_rank_takes_equally_many_steps():
    pool = replace(make_pool(count=16, train=12), patients_N=torch.tensor([0] * 8 + [1] * 3 + [2] + [3, 3, 3, 4]))
    shards = [pool.shard(rank, 2) for rank in range(2)]
    assert [len(shard.train) for shard in shards] == [8, 4]
    assert [shard.steps(4) for shard in shards] == [1, 1]
    assert [len(epoch(shard)) for shard in shards] == [1, 1]
    seen = {tuple(batch.labels_NL.flatten().tolist()) for number in range(1, 9) for batch in epoch(shards[0], number)}
    assert len(seen) > 1, "epochs must take others of the larger shard's images"


def test_ranks_augment_their_images_differently():
    pool = make_pool()
    both = replace(pool, train=torch.arange(12), rank=0), replace(pool, train=torch.arange(12), rank=1)
    assert not same(*(epoch(one) for one in both))


def test_more_processes_than_patients_is_a_users_mistake():
    with pytest.raises(UserError, match="too few patients for 3 processes"):
        make_pool().shard(0, 3)  # two patients of validation
    with pytest.raises(UserError, match=r"pretraining\.batch_size is 7, but the pool has 6 training images"):
        make_pool().shard(0, 2).steps(7)


def test_patients_that_do_not_fit_the_images_are_refused():
    pool = make_pool()
    with pytest.raises(ValueError, match="patients of 16 images"):
        replace(pool, patients_N=pool.patients_N[:3])
