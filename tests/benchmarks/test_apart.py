import os

import pytest

from benchmarks.apart import Apart


def parts(number):
    return {"number": lambda: number, "process": os.getpid, "fail": lambda: 1 / 0}


def test_parts_run_in_one_process_of_their_own():
    with Apart(parts, 7) as apart:
        process = apart("process")
        assert (apart("number"), apart("process")) == (7, process)
        assert process != os.getpid()


def test_a_failure_there_is_one_here(capfd):
    with Apart(parts, 7) as apart, pytest.raises(RuntimeError, match="failed"):
        apart("fail")
    assert "ZeroDivisionError" in capfd.readouterr().err
