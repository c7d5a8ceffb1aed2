"""Images on their way to the training device: all of them there, or streamed to it ahead of the training.

Belongs here: where the pixels lie, and handing them over in batches. Not here: reading the cache, what a batch is for.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Protocol

import torch
from torch import Tensor

from pipeline.images.cache import MEMORY_SHARE, host_memory

WORKERS = 2
AHEAD = 4
"""Batches that are ready or on their way while the device works on one."""
THREADS = "images"
"""What the names of the threads that stream begin with."""


class ImageLoader(Protocol):
    """N images of height × width pixels, uint8 grey, that come to `device` batch by batch."""

    @property
    def count(self) -> int:
        """N."""

    @property
    def height(self) -> int:
        """In pixels."""

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""

    def to(self, device: torch.device) -> "ImageLoader":
        """The same images, fed to `device`."""

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each batch of indices (int64, shape (n,), on the CPU) its images, uint8, shape (n, H, W), in order.

        Raises IndexError where an index is not one of an image.
        """


def image_loader(images_NHW: Tensor, device: torch.device, share: float = MEMORY_SHARE) -> ImageLoader:
    """The uint8 images of a CPU tensor, fed to `device`: resident if they take at most `share` of its free memory.

    On the CPU that is the machine's memory: what is larger lies in a mapped file (`pipeline.images.cache.load_pixels`),
    which is then read ahead of the training.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host_memory()
    if images_NHW.nbytes <= share * free:
        return ResidentLoader(images_NHW.to(device))
    return StreamingLoader(images_NHW, device)


@dataclass(frozen=True)
class _ImageTensor:
    """What both feeds have: the images in one uint8 tensor, shape (N, H, W)."""

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


@dataclass(frozen=True)
class ResidentLoader(_ImageTensor):
    """All images on the device."""

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images_NHW.device

    def to(self, device: torch.device) -> ImageLoader:
        """The same images, fed to `device`."""
        if self.device.type == "cpu":
            return image_loader(self.images_NHW, device)
        return ResidentLoader(self.images_NHW.to(device))

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `ImageLoader.batches`."""
        for index_N in index_batches:
            _check(index_N, self.count)
            yield self.images_NHW.index_select(0, index_N.to(self.device, non_blocking=True))


@dataclass(frozen=True)
class StreamingLoader(_ImageTensor):
    """All images on the CPU, brought to `device` by threads, a few batches ahead.

    How many `workers` there are changes no bit. On CUDA a batch is gathered into pinned memory and copied on a stream
    beside the training's.
    """

    device: torch.device
    workers: int = WORKERS

    def to(self, device: torch.device) -> ImageLoader:
        """The same images, fed to `device`."""
        return image_loader(self.images_NHW, device)

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `ImageLoader.batches`; leaves no thread behind, however it ends."""
        remaining = iter(index_batches)
        lanes: SimpleQueue[_PrefetchSlot] = SimpleQueue()
        for _ in range(self.workers):
            lanes.put(_PrefetchSlot(self.device))
        threads = ThreadPoolExecutor(self.workers, THREADS)
        try:
            pending = deque(threads.submit(self._brought, index_N, lanes) for index_N in islice(remaining, AHEAD))
            while pending:
                batch_NHW = _received(pending.popleft(), self.device)
                pending.extend(threads.submit(self._brought, index_N, lanes) for index_N in islice(remaining, 1))
                yield batch_NHW
        finally:
            threads.shutdown(cancel_futures=True)

    def _brought(self, index_N: Tensor, lanes: "SimpleQueue[_PrefetchSlot]") -> Tensor:
        """In a worker: one batch, arrived on the device."""
        _check(index_N, self.count)
        lane = lanes.get()  # never waits: there are as many as workers
        try:
            return lane.bring(self.images_NHW, index_N)
        finally:
            lanes.put(lane)


class _PrefetchSlot:
    """What one worker needs to bring a batch: a host buffer, pinned where that speeds up the copy, and a stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.buffer = torch.empty(0, dtype=torch.uint8)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def bring(self, images_NHW: Tensor, index_N: Tensor) -> Tensor:
        """Gather, copy, and wait for the copy: the buffer is free again, at the cost of the worker's time alone."""
        rows_NHW = self._rows(len(index_N), images_NHW)
        torch.index_select(images_NHW, 0, index_N, out=rows_NHW)
        with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
            batch_NHW = rows_NHW.to(self.device, non_blocking=True, copy=True)
            if self.stream is not None:
                copied = torch.cuda.Event(blocking=True)  # sleeps instead of keeping a core busy
                copied.record(self.stream)
                copied.synchronize()
        return batch_NHW

    def _rows(self, count: int, images_NHW: Tensor) -> Tensor:
        if len(self.buffer) < count:
            shape = (count, *images_NHW.shape[1:])
            self.buffer = torch.empty(shape, dtype=torch.uint8, pin_memory=self.stream is not None)
        return self.buffer[:count]


def _received(brought: "Future[Tensor]", device: torch.device) -> Tensor:
    """A worker's batch, or its exception; its memory is the training stream's from now on, not the lane's."""
    batch_NHW = brought.result()
    if device.type == "cuda":
        batch_NHW.record_stream(torch.cuda.current_stream(device))
    return batch_NHW


def _check(index_N: Tensor, count: int) -> None:
    """A GPU would say so much later, and not where."""
    if len(index_N) and not 0 <= int(index_N.min()) <= int(index_N.max()) < count:
        raise IndexError(f"indices from {int(index_N.min())} to {int(index_N.max())} of {count} images")
