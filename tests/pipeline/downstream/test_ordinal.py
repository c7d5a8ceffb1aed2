"""Ordinal codes: the paper's encoding, and the decoding of monotone and other scores."""

import numpy as np
import pytest

from pipeline.downstream.ordinal import decode, encode


def test_codes_are_those_of_the_paper() -> None:
    expected = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert encode(np.arange(5), 5).tolist() == expected


def test_every_code_decodes_to_its_class() -> None:
    assert decode(encode(np.arange(5), 5)).tolist() == [0, 1, 2, 3, 4]


def test_monotone_scores_decode_to_the_number_above_one_half() -> None:
    scores = -np.sort(-np.random.default_rng(0).random((200, 4)), axis=1)
    assert decode(scores).tolist() == (scores > 0.5).sum(axis=1).tolist()


@pytest.mark.parametrize(
    ("scores", "rank"),
    [
        ([0.4, 0.9, 0.9, 0.2], 3),  # one hesitant "no" below two confident "yes" does not pull the rank to 0
        ([0.9, 0.2, 0.6, 0.1], 1),  # one weak "yes" above a firmer "no" does not lift it to 2 or 3
        ([0.1, 0.1, 0.1, 0.8], 0),
        ([0.0, 1.0, 1.0, 1.0], 4),  # saturated scores stay comparable
    ],
)
def test_scores_that_are_not_monotone_decode_to_the_likeliest_code(scores: list[float], rank: int) -> None:
    def likelihood(k: int) -> float:
        p = np.clip(scores, 1e-7, 1 - 1e-7)
        return float(np.prod(p[:k]) * np.prod(1 - p[k:]))

    assert max(range(5), key=likelihood) == rank
    assert decode(np.array([scores], dtype=np.float32)).tolist() == [rank]


def test_of_equally_likely_classes_the_lowest_is_taken() -> None:
    assert decode(np.full((1, 4), 0.5)).tolist() == [0]
