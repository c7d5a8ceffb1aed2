"""The duration of a training from a few timed steps."""

import pytest

from pipeline.training.timing import TIMED_STEPS, add_ranges, estimate_hours, format_range, time_steps


class Counting:
    """A training whose epoch has `size` batches."""

    def __init__(self, size: int) -> None:
        self.size, self.steps = size, 0

    def batches(self, epoch: int, first_step: int):
        return iter(range(self.size))

    def step(self, batch: int) -> None:
        self.steps += 1


@pytest.mark.parametrize("size", [1, 3, 50])
def test_the_first_step_does_not_count_and_short_epochs_are_repeated(size: int) -> None:
    training = Counting(size)
    assert len(time_steps(training)) == TIMED_STEPS
    assert training.steps == TIMED_STEPS + 1


def test_slow_steps_are_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 15))
    monkeypatch.setattr("pipeline.training.timing.time.monotonic", lambda: float(next(clock)))
    assert time_steps(Counting(50)) == [15.0]


def test_hours_are_between_the_fastest_and_the_slowest_step() -> None:
    low, high = estimate_hours([2.0, 4.0, 3.0], steps=90, validations=12)
    assert low == pytest.approx(2.0 * (90 + 12 / 6) / 3600)
    assert high == pytest.approx(1.3 * 4.0 * (90 + 12 / 2) / 3600)


def test_ranges_follow_each_other_and_are_readable() -> None:
    assert add_ranges([(1.0, 2.0), (0.5, 4.0)]) == (1.5, 6.0)
    assert add_ranges([]) == (0, 0)
    assert format_range((10 / 3600, 0.5)) == "10 s to 30 min"
    assert format_range((1.25, 30.0)) == "1.2 h to 30.0 h"
