"""Forecasts of trainings from a few timed steps: hours and how they are printed."""

from dataclasses import replace

import pytest

from pipeline.training.preflight import (
    TIMED_STEPS,
    Forecast,
    estimate_hours,
    format_range,
    format_size,
    time_steps,
    total_hours,
)


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
    monkeypatch.setattr("pipeline.training.preflight.time.monotonic", lambda: float(next(clock)))
    assert time_steps(Counting(50)) == [15.0]


def test_hours_are_between_the_fastest_and_the_slowest_step() -> None:
    low, high = estimate_hours([2.0, 4.0, 3.0], steps=90, validations=12)
    assert low == pytest.approx(2.0 * (90 + 12 / 6) / 3600)
    assert high == pytest.approx(1.3 * 4.0 * (90 + 12 / 2) / 3600)


def test_ranges_follow_each_other_and_are_readable() -> None:
    first, second = (Forecast("x", 1, 1, (1, 1), hours, 1, 0, 1, 1) for hours in ((1.0, 2.0), (0.5, 4.0)))
    assert total_hours([first, second]) == (1.5, 6.0)
    assert total_hours([]) == (0, 0)
    assert format_range((10 / 3600, 0.5)) == "10 s to 30 min"
    assert format_range((1.25, 30.0)) == "1.2 h to 30.0 h"


def test_a_forecast_reads_as_one_line_and_names_the_number_of_models_if_there_are_several() -> None:
    one = Forecast("resnet50 ce", 1, 3600, (1.4, 2.0), (1.4, 2.8), 1_800_000_000, 0, 400_000_000, 1_000_000_000)
    line = "3600 steps of 1.4 to 2 s, 1.4 h to 2.8 h; 1.8 GB of memory, 1.4 GB of disk"
    assert str(one) == f"resnet50 ce: {line}"
    assert str(replace(one, models=4)) == f"resnet50 ce: 4 models, {line}"
    assert "1.8 GB of memory, 500 MB of GPU memory, " in str(replace(one, gpu_memory=500_000_000))
    assert format_size(999_400_000) == "999 MB"
