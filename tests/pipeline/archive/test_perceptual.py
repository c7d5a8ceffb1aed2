import io
import re

import imagehash
import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image
from scipy.fft import dctn

from pipeline.archive.perceptual import perceptual_hash


def scene(seed: int, height: int = 256, width: int = 384) -> np.ndarray:
    """A smooth random picture."""
    coarse = Image.fromarray(default_rng(seed).integers(0, 256, (8, 12), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def bits(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def as_jpeg(grey: np.ndarray) -> np.ndarray:
    packed = io.BytesIO()
    Image.fromarray(grey).save(packed, "JPEG", quality=50)
    return np.asarray(Image.open(packed))


@pytest.mark.parametrize("shape", [(256, 384), (480, 640), (1, 1), (64, 96), (3, 500)])
def test_a_hash_is_16_hex_digits(shape):
    assert re.fullmatch("[0-9a-f]{16}", perceptual_hash(scene(0, *shape)))


@pytest.mark.parametrize("seed", range(5))
def test_the_same_picture_smaller_darker_or_recompressed_hashes_alike(seed):
    grey = scene(seed)
    smaller = np.asarray(Image.fromarray(grey).resize((96, 64), Image.Resampling.LANCZOS))
    for same in (smaller, (grey * 0.8).astype(np.uint8), as_jpeg(grey)):
        assert bits(perceptual_hash(grey), perceptual_hash(same)) <= 4


def test_different_pictures_hash_apart():
    hashes = [perceptual_hash(scene(seed)) for seed in range(20)]
    assert min(bits(one, other) for one in hashes for other in hashes if one is not other) > 10


def test_the_bits_are_the_signs_of_low_frequencies_against_their_median():
    grey = scene(1, 32, 32)
    low = dctn(grey.astype(float))[:8, :8]
    expected = f"{int(''.join('1' if value else '0' for value in (low > np.median(low)).ravel()), 2):016x}"
    assert bits(perceptual_hash(grey), expected) <= 1  # the library's transform is not normalized: ties may differ


def test_reducing_first_changes_next_to_nothing():
    for seed in range(10):
        grey = scene(seed, 480, 640)
        assert bits(perceptual_hash(grey), str(imagehash.phash(Image.fromarray(grey)))) <= 2
