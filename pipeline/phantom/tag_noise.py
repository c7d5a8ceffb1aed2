"""Errors in study descriptions: which studies have them, and the wrong descriptions."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.random import Generator

from pipeline.phantom.protocols import OTHER_ORGANS, PROTOCOLS, Protocol, sample_protocols
from pipeline.phantom.settings import TagNoise


class Noise(StrEnum):
    """An error in an image's tags (a rate of `pipeline.phantom.settings.TagNoise`), or in Table A1's groups for it.

    `mapping`: the description is right, but Table A1 maps it to other groups than that of the other side.
    """

    OTHER_ORGAN = "other_organ"
    WRONG_PROTOCOL = "wrong_protocol"
    MISSPELT = "misspelt"
    ABBREVIATED = "abbreviated"
    NO_DESCRIPTION = "no_description"
    SWAPPED_SIDE = "swapped_side"
    MAPPING = "mapping"
    MISSING_PROBE = "missing_probe"
    FOREIGN_PROBE = "foreign_probe"


@dataclass(frozen=True)
class Examination:
    """One study: the true protocol, the description, and its error.

    `named` is the protocol of the description; None if it is not in Table A1, or there is no description.
    """

    protocol: Protocol
    description: str | None
    named: Protocol | None
    noise: Noise | None = None


def examinations(count: int, rates: TagNoise, rng: Generator) -> list[Examination]:
    """`count` studies' examinations, at the protocols' frequencies, and the noise at its rates."""
    found = [_right_tags(protocol) for protocol in sample_protocols(count, rng)]
    free = [int(index) for index in rng.permutation(count)]
    for rate, hit in (
        (rates.other_organ, _of_another_organ),
        (rates.wrong_protocol, _with_wrong_protocol),
        (rates.misspelt, _misspelt),
        (rates.abbreviated, _abbreviated),
        (rates.no_description, _without_description),
    ):
        number = hits(rate, count)
        _apply_noise(found, free[:number], hit, rng)
        free = free[number:]
    sided = [index for index in free if found[index].protocol.other_side]
    _apply_noise(found, sided[: hits(rates.swapped_side, len(sided))], _with_the_other_side, rng)
    return found


def hits(rate: float, count: int) -> int:
    """The number of `count` items at a rate: at least one if the rate is above 0."""
    return min(count, max(1, round(rate * count))) if rate else 0


def _apply_noise(
    found: list[Examination], indices: list[int], hit: Callable[[Protocol, Generator], Examination], rng: Generator
) -> None:
    for index in indices:
        found[index] = hit(found[index].protocol, rng)


def _right_tags(protocol: Protocol) -> Examination:
    noise = None if protocol.groups == protocol.mapped_groups else Noise.MAPPING
    return Examination(protocol, protocol.description, protocol, noise)


def _of_another_organ(_: Protocol, rng: Generator) -> Examination:
    protocol = OTHER_ORGANS[int(rng.integers(len(OTHER_ORGANS)))]
    return Examination(protocol, protocol.description, None, Noise.OTHER_ORGAN)


def _with_wrong_protocol(protocol: Protocol, rng: Generator) -> Examination:
    """A wrong choice from the console's list: a protocol of other groups, at its frequency."""
    others = [other for other in PROTOCOLS if other.mapped_groups != protocol.groups]
    weights = np.array([other.weight for other in others])
    named = others[int(rng.choice(len(others), p=weights / weights.sum()))]
    return Examination(protocol, named.description, named, Noise.WRONG_PROTOCOL)


def _misspelt(protocol: Protocol, rng: Generator) -> Examination:
    """Two neighbouring letters swapped."""
    text = protocol.description
    pairs = [i for i in range(len(text) - 1) if text[i : i + 2].isalpha() and text[i] != text[i + 1]]
    at = pairs[int(rng.integers(len(pairs)))]
    return Examination(protocol, text[:at] + text[at + 1] + text[at] + text[at + 2 :], None, Noise.MISSPELT)


_SHORT = {
    "BIOPSY": "BX",
    "PARACENTESIS": "PARA",
    "THORACENTESIS": "THORA",
    "ASPIRATION": "ASP",
    "DRAINAGE": "DRN",
    "PLACEMENT": "PLCMT",
    "INTERVENTION": "INTV",
    "INJECTION": "INJ",
}


def _abbreviated(protocol: Protocol, _: Generator) -> Examination:
    words = [_SHORT.get(word, word) for word in protocol.description.replace("/", " ").split()]
    return Examination(protocol, " ".join(words), None, Noise.ABBREVIATED)


def _without_description(protocol: Protocol, _: Generator) -> Examination:
    return Examination(protocol, None, None, Noise.NO_DESCRIPTION)


def _with_the_other_side(protocol: Protocol, _: Generator) -> Examination:
    named = protocol.other_side or protocol
    return Examination(protocol, named.description, named, Noise.SWAPPED_SIDE)
