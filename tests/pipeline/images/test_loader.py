"""Loaders: resident and streaming ones deliver the same bits in the same order."""

import threading

import numpy as np
import pytest
import torch

from pipeline.images.loader import AHEAD, THREADS, ResidentLoader, StreamingLoader, image_loader

CPU = torch.device("cpu")
on_each_device = pytest.mark.parametrize(
    "device",
    [CPU, pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))],
)


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 32, 64), dtype=np.uint8)
    return torch.from_numpy(pixels)


def index_batches():
    """Sizes that grow and shrink, and repeated images, so that buffers are reused for other sizes."""
    draws = np.random.default_rng(1)
    return [torch.from_numpy(draws.integers(0, 200, size)) for size in (90, 1, 16, 16, 120, 3, 16, 16, 16, 7)]


def streaming_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]


@on_each_device
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_streamed_batches_are_the_requested_images_in_order_for_any_number_of_workers(images, workers, device):
    batches = list(StreamingLoader(images, torch.device(device), workers).batches(index_batches()))
    assert [batch.device.type for batch in batches] == [torch.device(device).type] * 10
    for batch, index in zip(batches, index_batches(), strict=True):  # after the last: none has been written over
        np.testing.assert_array_equal(batch.cpu().numpy(), images.numpy()[index.numpy()])


@on_each_device
def test_resident_batches_are_the_requested_images_in_order(images, device):
    resident = ResidentLoader(images.to(device))
    for batch, index in zip(resident.batches(index_batches()), index_batches(), strict=True):
        np.testing.assert_array_equal(batch.cpu().numpy(), images.numpy()[index.numpy()])


def test_a_batch_shares_no_memory_with_the_images(images):
    before = images.clone()
    for fed in (ResidentLoader(images), StreamingLoader(images, CPU)):
        for batch in fed.batches([torch.arange(200)]):
            batch.fill_(7)
    assert torch.equal(images, before)


def test_both_state_count_size_and_device(images):
    for fed in (ResidentLoader(images), StreamingLoader(images, CPU)):
        assert (fed.count, fed.height, fed.width, fed.device) == (200, 32, 64, CPU)


def test_no_batches_are_none(images):
    assert list(StreamingLoader(images, CPU).batches([])) == []
    assert not streaming_threads()


def test_no_more_than_a_few_batches_are_made_ahead(images):
    asked = []
    stream = StreamingLoader(images, CPU).batches(asked.append(n) or torch.tensor([n]) for n in range(50))
    next(stream)
    assert len(asked) <= 1 + AHEAD
    assert len(list(stream)) == 49


@pytest.mark.parametrize("wrong", [200, -1])
def test_a_workers_error_reaches_the_consumer_after_the_batches_before_it(images, wrong):
    for fed in (ResidentLoader(images), StreamingLoader(images, CPU, workers=4)):
        received = []
        with pytest.raises(IndexError, match="of 200 images"):
            for batch in fed.batches([torch.tensor([0]), torch.tensor([3, wrong]), *index_batches()]):
                received.append(batch)
        assert len(received) == 1
    assert not streaming_threads()


def test_an_iterator_abandoned_half_way_leaves_no_thread_behind(images):
    stream = StreamingLoader(images, CPU, workers=4).batches(index_batches())
    next(stream)
    assert streaming_threads()
    del stream
    assert not streaming_threads()


def test_images_that_fit_are_resident_and_others_streamed(images):
    resident, streamed = image_loader(images, CPU), image_loader(images, CPU, share=0)
    assert isinstance(resident, ResidentLoader)
    assert resident.images_NHW is images, "on the CPU they are there already"
    assert isinstance(streamed, StreamingLoader)
    assert isinstance(streamed.to(CPU), ResidentLoader)
    assert isinstance(ResidentLoader(images).to(CPU), ResidentLoader)


@pytest.mark.parametrize("other", [torch.zeros(2, 32, 32), torch.zeros(32, 32, dtype=torch.uint8)])
def test_other_than_grey_images_are_refused(other):
    with pytest.raises(ValueError, match="images are"):
        ResidentLoader(other)
