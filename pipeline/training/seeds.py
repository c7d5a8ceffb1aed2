"""Random numbers that depend on a seed and a purpose, on nothing else.

Belongs here: generators and the seeding of initial weights. Not here: what is drawn from them.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def scoped_seed(seed: int, *scope: str | int | float) -> int:
    """A 63-bit seed for one purpose, such as (0, "order", 3): from SHA-256, so that purposes do not correlate."""
    text = json.dumps([seed, *scope])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *scope: str | int | float) -> torch.Generator:
    """A CPU generator for one purpose. Its draws do not depend on the device, nor on what was drawn before."""
    return torch.Generator().manual_seed(scoped_seed(seed, *scope))


@contextmanager
def seeded(seed: int, *scope: str | int | float) -> Iterator[None]:
    """Within the block torch's global CPU generator, which initial weights come from, starts at this purpose's seed.

    The state it had before is put back afterwards. Networks are built on the CPU, so no device's generator is touched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(scoped_seed(seed, *scope))
        yield
