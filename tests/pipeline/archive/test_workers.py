"""The process pool: order, unexpected errors, crashes, hangs, memory blow-ups."""

import os
import signal
import struct
import time

import pytest

from pipeline.archive import workers
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


def compute_at_7(number):
    while number == 7:
        pass
    return number


def devour_at_5(number):
    return len(bytearray(MEMORY + 1)) if number == 5 else number


class Panic(BaseException):
    """As libraries written in Rust raise it."""


ERRORS = (ValueError, RecursionError, OverflowError, UnicodeError, struct.error, StopIteration, SystemExit, Panic)


def fail_at_even_numbers(number):
    if number % 2 == 0:
        raise ERRORS[number // 2]("/archive/Doe^Jane/1.dcm")
    return number


def unsendable_at_3(number):
    return open(os.devnull) if number == 3 else number


def failures(results):
    return {n: str(result.rejection.reason) for n, result in enumerate(results) if isinstance(result, Failed)}


def test_results_come_in_order():
    assert list(each_in_worker(square, range(100))) == [n * n for n in range(100)]


def test_no_items_give_no_results():
    assert list(each_in_worker(square, [])) == []


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (die_at_20, {20: "crashed"}),
        (hang_at_3, {3: "interrupted"}),
        (devour_at_5, {5: "over_limits"}),
    ],
)
def test_a_crash_a_hang_and_a_memory_blow_up_lose_one_item_each(work, expected):
    results = list(each_in_worker(work, range(40), seconds=2))
    assert failures(results) == expected
    assert [r for r in results if not isinstance(r, Failed)] == [n for n in range(40) if n not in expected]


def test_too_much_processor_time_is_over_the_limits(monkeypatch):
    monkeypatch.setattr(workers, "_PROCESSOR_SHARE", 0.05)  # long before the time is over, however busy the machine is
    assert failures(each_in_worker(compute_at_7, range(20), seconds=10)) == {7: "over_limits"}


def test_an_unexpected_error_loses_only_its_own_item():
    results = list(each_in_worker(fail_at_even_numbers, range(len(ERRORS) * 2)))
    assert failures(results) == dict.fromkeys(range(0, len(ERRORS) * 2, 2), "crashed")
    assert [r for r in results if not isinstance(r, Failed)] == list(range(1, len(ERRORS) * 2, 2))
    named = [result.rejection.detail for result in results if isinstance(result, Failed)]
    assert named == [f"reading stopped with {error.__name__}" for error in ERRORS]  # and not what the error quotes


def test_a_result_that_cannot_be_sent_loses_only_its_own_item():
    assert failures(each_in_worker(unsendable_at_3, range(40))) == {3: "crashed"}
