"""One training step at a time on a machine; a killed holder frees the place."""

import multiprocessing
import os
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from resources.compute import Compute


def hold(lock_file: str, held: Event) -> None:
    with Compute(lock_file=lock_file).training(print):
        held.set()
        time.sleep(60)


def test_the_training_lock_is_free_after_kill_9(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    lock_file, held = str(tmp_path / "locks" / "training.lock"), context.Event()
    holder = context.Process(target=hold, args=(lock_file, held))
    holder.start()
    assert held.wait(30)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    said: list[str] = []
    with Compute(lock_file=lock_file).training(said.append):
        pass
    assert said == []


def test_a_second_step_waits_and_logs_a_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    lock_file, held = str(tmp_path / "training.lock"), context.Event()
    holder = context.Process(target=hold, args=(lock_file, held))
    holder.start()
    assert held.wait(30)
    said: list[str] = []

    def say_and_end_the_holder(line: str) -> None:
        said.append(line)
        holder.kill()  # SIGTERM may be ignored: a library in this process can leave that to its children

    with Compute(lock_file=lock_file).training(say_and_end_the_holder):
        pass
    holder.join()
    assert len(said) == 1
    assert "Waiting" in said[0]
