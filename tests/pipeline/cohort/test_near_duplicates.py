import time

import numpy as np
import pyarrow as pa
import pytest
from numpy.random import default_rng

from pipeline.cohort.near_duplicates import CROWD, near_duplicates
from pipeline.tables import NEAR_DUPLICATES


def table(hashes, patients, sources=None, frames=None) -> pa.Table:
    count = len(hashes)
    return pa.table(
        {
            "sop_instance": [f"i{number:07d}" for number in range(count)],
            "frame": pa.array(frames or [0] * count, pa.int64()),
            "patient": patients,
            "source_digest": sources or [f"s{number}" for number in range(count)],
            "perceptual_hash": [f"{value:016x}" for value in hashes],
        }
    )


def pairs(found: pa.Table) -> set[tuple[str, str, int]]:
    return {(row["sop_instance"], row["other_sop_instance"], row["distance"]) for row in found.to_pylist()}


def test_what_is_found_is_what_comparing_all_with_all_finds():
    rng = default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**63, 60)]
    for base in hashes[:60]:  # relatives at distances 0 to 8
        for flips in range(9):
            hashes.append(base ^ sum(1 << int(bit) for bit in rng.choice(64, flips, replace=False)))
    patients = [f"p{number % 7}" for number in range(len(hashes))]
    for distance in (0, 3, 4, 7):
        expected = {
            (f"i{one:07d}", f"i{two:07d}", (hashes[one] ^ hashes[two]).bit_count())
            for one in range(len(hashes))
            for two in range(one + 1, len(hashes))
            if (hashes[one] ^ hashes[two]).bit_count() <= distance and patients[one] != patients[two]
        }
        found = near_duplicates(table(hashes, patients), distance)
        assert pairs(found) == expected
        assert found.num_rows == len(expected)
        assert len(expected) > 20


def test_rows_are_sorted_and_have_the_tables_schema():
    found = near_duplicates(table([1, 0, 3, 2], ["a", "b", "c", "d"]))
    assert found.schema == NEAR_DUPLICATES.schema
    keys = [(row["sop_instance"], row["other_sop_instance"]) for row in found.to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) == 6


def test_the_order_of_the_images_does_not_matter():
    images = table([int(value) for value in default_rng(1).integers(0, 32, 50)], [f"p{n % 5}" for n in range(50)])
    shuffled = images.take(default_rng(2).permutation(50))
    assert near_duplicates(images).equals(near_duplicates(shuffled))


def test_one_patient_and_exact_repeats_are_left_out():
    assert near_duplicates(table([5, 5], ["a", "a"])).num_rows == 0
    assert near_duplicates(table([5, 5], ["a", "b"], ["same", "same"])).num_rows == 0
    assert near_duplicates(table([5, 5], ["a", "b"], ["one", "two"])).num_rows == 1


def test_hashes_that_differ_in_their_highest_bit_are_compared():
    found = near_duplicates(table([2**64 - 1, 2**63 - 1], ["a", "b"]), 1)
    assert found["distance"].to_pylist() == [1]


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_pairs(count):
    found = near_duplicates(table([0] * count, ["a"] * count) if count else table([0], ["a"]).slice(0, 0))
    assert found.num_rows == 0
    assert found.schema == NEAR_DUPLICATES.schema


@pytest.mark.parametrize("distance", [-1, 17])
def test_a_distance_that_makes_no_sense_is_refused(distance):
    with pytest.raises(ValueError, match="distance"):
        near_duplicates(table([0], ["a"]), distance)


def test_thousands_of_blank_frames_do_not_take_all_pairs():
    rng = default_rng(3)
    blank = [0] * 20_000
    others = [int(value) for value in rng.integers(2**40, 2**63, 20_000)]
    hashes = [*blank, *others, others[0] ^ 0b101]
    patients = [f"p{number}" for number in range(len(hashes))]
    started = time.perf_counter()
    found = near_duplicates(table(hashes, patients))
    assert time.perf_counter() - started < 10
    assert ("i0020000", "i0040000", 2) in pairs(found)
    assert found.num_rows < 20_000 * 60


def test_a_bucket_just_small_enough_is_compared_whole():
    count = CROWD
    found = near_duplicates(table([7] * count, [f"p{number}" for number in range(count)]))
    assert found.num_rows == count * (count - 1) // 2


def test_distances_are_counted_right_against_python():
    rng = default_rng(4)
    hashes = [int(value) for value in rng.integers(0, 256, 80)]
    found = near_duplicates(table(hashes, [f"p{number}" for number in range(80)]))
    for one, other, distance in pairs(found):
        assert distance == bin(hashes[int(one[1:])] ^ hashes[int(other[1:])]).count("1")
    assert np.unique(found["distance"].to_numpy()).tolist() == [0, 1, 2, 3, 4]
