"""The loop over epochs: selection, divergence, resuming.

Belongs here: the loop with a toy training whose course is known. Not here: real networks.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training.checkpoint import Trained
from pipeline.training.loop import Diverged, epochs_done, fit


class Toy:
    """Its only weight is the number of epochs trained; its validation losses are given."""

    kept: tuple[str, ...] = ("counter",)

    def __init__(self, losses, stop_in=None):
        self.counter = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.counter.weight)
        self.trained = Trained({"counter": self.counter})
        self.losses, self.stop_in, self.epoch = losses, stop_in, 0

    def train_epoch(self, epoch, advance):
        if epoch == self.stop_in:
            raise KeyboardInterrupt
        self.epoch = epoch
        with torch.no_grad():
            self.counter.weight += 1
        advance(10)
        return {"train_loss": 1.0 / epoch}

    def validate(self):
        return {"val_loss": self.losses[self.epoch - 1]}


def run(toy, folder, fingerprint="f", heard=None, advanced=None):
    note = (lambda epoch, metrics: heard.append((epoch, metrics))) if heard is not None else (lambda *_: None)
    count = advanced.append if advanced is not None else (lambda _: None)
    return fit(toy, len(toy.losses), folder / "c.safetensors", fingerprint, advance=count, on_epoch=note)


def test_the_epoch_with_the_lowest_validation_loss_is_kept_the_first_of_equals(tmp_path: Path):
    toy, heard = Toy([3.0, 1.0, 2.0, 1.0]), []
    history = run(toy, tmp_path, heard=heard)
    assert history.best_epoch == 2
    assert toy.counter.weight.item() == 2
    assert heard[1] == (2, {"train_loss": 0.5, "val_loss": 1.0})
    assert [epoch for epoch, _ in heard] == [1, 2, 3, 4]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_divergence_and_names_metric_and_epoch(tmp_path: Path, loss):
    with pytest.raises(Diverged, match=r"val_loss was -?(nan|inf) in epoch 2"):
        run(Toy([3.0, loss, 2.0]), tmp_path)


def test_a_stopped_run_goes_on_after_its_last_whole_epoch_and_tells_of_the_epochs_before(tmp_path: Path):
    losses = [1.0, 3.0, 2.0, 4.0]
    with pytest.raises(KeyboardInterrupt):
        run(Toy(losses, stop_in=4), tmp_path)
    assert epochs_done(tmp_path / "c.safetensors", "f") == 3
    resumed, heard, advanced = Toy(losses), [], []
    history = run(resumed, tmp_path, heard=heard, advanced=advanced)
    assert advanced == [10], "only the fourth epoch is left to do"
    assert [(epoch, metrics["val_loss"]) for epoch, metrics in heard] == list(enumerate(losses, start=1))
    assert history.best_epoch == 1
    assert resumed.counter.weight.item() == 1, "the best epoch lay before the stop"


def test_a_checkpoint_of_other_inputs_is_not_resumed(tmp_path: Path):
    run(Toy([1.0]), tmp_path, fingerprint="before")
    assert epochs_done(tmp_path / "c.safetensors", "after") == 0
    advanced: list[int] = []
    run(Toy([1.0, 2.0]), tmp_path, fingerprint="after", advanced=advanced)
    assert advanced == [10, 10]
