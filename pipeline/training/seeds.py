"""Random generators that depend on nothing but a seed and a purpose."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def scoped_seed(seed: int, *scope: str | int | float) -> int:
    """A 63-bit seed for one purpose, such as (0, "order", 3), by SHA-256, so that purposes do not correlate."""
    text = json.dumps([seed, *scope])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *scope: str | int | float) -> torch.Generator:
    """A CPU generator for one purpose; its draws depend neither on the device nor on earlier draws."""
    return torch.Generator().manual_seed(scoped_seed(seed, *scope))


@contextmanager
def seeded(seed: int, *scope: str | int | float) -> Iterator[None]:
    """Seed torch's global CPU generator, the source of initial weights, for one purpose; restores its state afterwards.

    Networks are built on the CPU, so that the generators of devices are not involved.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(scoped_seed(seed, *scope))
        yield
