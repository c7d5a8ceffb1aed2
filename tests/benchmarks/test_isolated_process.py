import os

import pytest

from benchmarks.isolated_process import IsolatedProcess


def parts(number):
    return {"number": lambda: number, "process": os.getpid, "fail": lambda: 1 / 0}


def test_parts_run_in_one_process_of_their_own():
    with IsolatedProcess(parts, 7) as isolated:
        process = isolated("process")
        assert (isolated("number"), isolated("process")) == (7, process)
        assert process != os.getpid()


def test_a_failure_in_the_subprocess_is_raised_in_the_caller(capfd):
    with IsolatedProcess(parts, 7) as isolated, pytest.raises(RuntimeError, match="failed"):
        isolated("fail")
    assert "ZeroDivisionError" in capfd.readouterr().err
