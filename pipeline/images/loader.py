"""Loaders that bring images to the training device: all at once, or by prefetching batches."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue

import torch
from torch import Tensor

from pipeline.images.cache import MEMORY_SHARE, host_memory

WORKERS = 2
AHEAD = 4
"""Batches that are ready or being fetched while the device works on one."""
THREADS = "images"
"""Prefix of the names of prefetching threads."""


@dataclass(frozen=True)
class ImageLoader(ABC):
    """N grey images of height × width pixels, one uint8 tensor of shape (N, H, W), delivered in batches."""

    images_NHW: Tensor

    def __post_init__(self) -> None:
        if self.images_NHW.dtype != torch.uint8 or self.images_NHW.ndim != 3:
            raise ValueError(f"images are {self.images_NHW.dtype} of shape {tuple(self.images_NHW.shape)}")

    @property
    def count(self) -> int:
        """N."""
        return len(self.images_NHW)

    @property
    def height(self) -> int:
        """In pixels."""
        return self.images_NHW.shape[1]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.images_NHW.shape[2]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the batches."""

    @abstractmethod
    def to(self, device: torch.device) -> "ImageLoader":
        """A loader of the same images for `device`."""

    @abstractmethod
    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each batch of indices (int64, shape (n,), on the CPU) its images, uint8, shape (n, H, W), in order.

        Raises IndexError if an index is out of range.
        """


def image_loader(images_NHW: Tensor, device: torch.device, share: float = MEMORY_SHARE) -> ImageLoader:
    """A loader of uint8 images, resident on `device` if they take at most `share` of its free memory, else streaming.

    On the CPU, images beyond the machine's memory lie in a mapped file (`pipeline.images.cache.load_pixels`), which the
    streaming loader reads ahead.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host_memory()
    if images_NHW.nbytes <= share * free:
        return ResidentLoader(images_NHW.to(device))
    return StreamingLoader(images_NHW, device)


@dataclass(frozen=True)
class ResidentLoader(ImageLoader):
    """All images on the device."""

    @property
    def device(self) -> torch.device:
        """The device of the images and of the batches."""
        return self.images_NHW.device

    def to(self, device: torch.device) -> ImageLoader:
        """As `ImageLoader.to`."""
        if self.device.type == "cpu":
            return image_loader(self.images_NHW, device)
        return ResidentLoader(self.images_NHW.to(device))

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `ImageLoader.batches`."""
        for index_N in index_batches:
            _check(index_N, self.count)
            yield self.images_NHW.index_select(0, index_N.to(self.device, non_blocking=True))


@dataclass(frozen=True)
class StreamingLoader(ImageLoader):
    """All images on the CPU; threads prefetch batches to `device`.

    The number of `workers` does not change the batches. On CUDA a batch is gathered into pinned memory and copied on a
    stream of its own.
    """

    target: torch.device
    workers: int = WORKERS

    @property
    def device(self) -> torch.device:
        """The device that batches are copied to."""
        return self.target

    def to(self, device: torch.device) -> ImageLoader:
        """As `ImageLoader.to`."""
        return image_loader(self.images_NHW, device)

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `ImageLoader.batches`; its threads end with the iteration, also if that is abandoned."""
        remaining = iter(index_batches)
        slots: SimpleQueue[_PrefetchSlot] = SimpleQueue()
        for _ in range(self.workers):
            slots.put(_PrefetchSlot(self.device))
        threads = ThreadPoolExecutor(self.workers, THREADS)
        try:
            pending = deque(threads.submit(self._fetch, index_N, slots) for index_N in islice(remaining, AHEAD))
            while pending:
                batch_NHW = _receive(pending.popleft(), self.device)
                pending.extend(threads.submit(self._fetch, index_N, slots) for index_N in islice(remaining, 1))
                yield batch_NHW
        finally:
            threads.shutdown(cancel_futures=True)

    def _fetch(self, index_N: Tensor, slots: "SimpleQueue[_PrefetchSlot]") -> Tensor:
        """In a worker: one batch, on the device."""
        _check(index_N, self.count)
        slot = slots.get()  # never waits: there is one per worker
        try:
            return slot.fetch(self.images_NHW, index_N)
        finally:
            slots.put(slot)


class _PrefetchSlot:
    """The host buffer and the copy stream of one worker; on CUDA the buffer is pinned."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.buffer = torch.empty(0, dtype=torch.uint8)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def fetch(self, images_NHW: Tensor, index_N: Tensor) -> Tensor:
        """Gather a batch and copy it to the device; waits for the copy, so that the buffer can be used again."""
        rows_NHW = self._rows(len(index_N), images_NHW)
        torch.index_select(images_NHW, 0, index_N, out=rows_NHW)
        with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
            batch_NHW = rows_NHW.to(self.device, non_blocking=True, copy=True)
            if self.stream is not None:
                copied = torch.cuda.Event(blocking=True)  # sleeps instead of spinning
                copied.record(self.stream)
                copied.synchronize()
        return batch_NHW

    def _rows(self, count: int, images_NHW: Tensor) -> Tensor:
        if len(self.buffer) < count:
            shape = (count, *images_NHW.shape[1:])
            self.buffer = torch.empty(shape, dtype=torch.uint8, pin_memory=self.stream is not None)
        return self.buffer[:count]


def _receive(fetched: "Future[Tensor]", device: torch.device) -> Tensor:
    """A worker's batch, or its exception; the batch's memory then belongs to the training's stream."""
    batch_NHW = fetched.result()
    if device.type == "cuda":
        batch_NHW.record_stream(torch.cuda.current_stream(device))
    return batch_NHW


def _check(index_N: Tensor, count: int) -> None:
    """Raise IndexError for an index out of range, which a GPU would report late and without its origin."""
    if len(index_N) and not 0 <= int(index_N.min()) <= int(index_N.max()) < count:
        raise IndexError(f"indices from {int(index_N.min())} to {int(index_N.max())} of {count} images")
