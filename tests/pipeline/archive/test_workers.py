"""The process pool: order, exceptions, crashes."""

import os
import signal

import pytest

from pipeline.archive.workers import Crashed, each_in_worker


def square(number):
    return number * number


def die_at_20(number):
    if number == 20:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number


def fail(number):
    raise ValueError(number)


def test_results_come_in_order():
    assert list(each_in_worker(square, range(100))) == [n * n for n in range(100)]


def test_nothing_to_do_is_nothing_done():
    assert list(each_in_worker(square, [])) == []


def test_a_crash_costs_one_item():
    results = list(each_in_worker(die_at_20, range(50)))
    assert [n for n, result in enumerate(results) if isinstance(result, Crashed)] == [20]
    assert [result for result in results if not isinstance(result, Crashed)] == [n for n in range(50) if n != 20]


def test_what_the_work_raises_is_raised_here():
    with pytest.raises(ValueError, match="0"):
        list(each_in_worker(fail, range(3)))
