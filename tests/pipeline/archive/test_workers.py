"""The process pool: order, exceptions, crashes, hangs, gluttons."""

import os
import signal
import time

import pytest

from pipeline.archive.workers import MEMORY, Failed, each_in_worker


def square(number):
    return number * number


def die_at_20(number):
    if number == 20:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number


def hang_at_3(number):
    if number == 3:
        time.sleep(60)
    return number


def devour_at_5(number):
    return len(bytearray(MEMORY + 1)) if number == 5 else number


def fail(number):
    raise ValueError(number)


def failures(results):
    return {n: str(result.rejection.reason) for n, result in enumerate(results) if isinstance(result, Failed)}


def test_results_come_in_order():
    assert list(each_in_worker(square, range(100))) == [n * n for n in range(100)]


def test_nothing_to_do_is_nothing_done():
    assert list(each_in_worker(square, [])) == []


@pytest.mark.parametrize(
    ("work", "expected"),
    [(die_at_20, {20: "crashed"}), (hang_at_3, {3: "over_limits"}), (devour_at_5, {5: "over_limits"})],
)
def test_a_crash_a_hang_and_a_glutton_cost_one_item_each(work, expected):
    results = list(each_in_worker(work, range(40), seconds=2))
    assert failures(results) == expected
    assert [r for r in results if not isinstance(r, Failed)] == [n for n in range(40) if n not in expected]


def test_what_the_work_raises_is_raised_here():
    with pytest.raises(ValueError, match="0"):
        list(each_in_worker(fail, range(3)))
