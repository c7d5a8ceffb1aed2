"""The loop over epochs with a toy training: selection, divergence, resuming."""

import math
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training import loop
from pipeline.training.checkpoint import Trained
from pipeline.training.loop import Diverged, Scoring, fit, seconds_done, steps_done

STEPS = 3


class Toy:
    """Its only weight is the number of steps trained; its validation losses are given."""

    result_networks: tuple[str, ...] = ("counter",)
    metrics: tuple[str, ...] = ("train_loss",)
    selected_by = "val_loss"

    def __init__(self, losses, stop_in=None, stuck_from=None):
        self.counter = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.counter.weight)
        self.trained = Trained({"counter": self.counter})
        self.losses, self.stop_in, self.stuck_from, self.epoch = losses, stop_in, stuck_from, 0

    def batches(self, epoch, first_step):
        self.epoch = epoch
        return iter([(epoch, step) for step in range(STEPS)][first_step:])

    def step(self, batch):
        if batch == self.stop_in:
            raise KeyboardInterrupt
        with torch.no_grad():
            self.counter.weight += 1
        return torch.tensor([float(batch[1])]) / batch[0]

    def validate(self):
        return {"val_loss": self.losses[self.epoch - 1]}

    def check_divergence(self, curves):
        if self.stuck_from is not None and len(curves) >= self.stuck_from:
            raise Diverged("stuck")


def run(toy, folder, fingerprint="f", heard=None, advanced=None, seconds=0.0, scoring=None, patience=None):
    note = (lambda epoch, metrics: heard.append((epoch, metrics))) if heard is not None else (lambda *_: None)
    count = advanced.append if advanced is not None else (lambda _: None)
    return fit(
        toy,
        len(toy.losses),
        folder / "c.safetensors",
        fingerprint,
        advance=count,
        on_epoch=note,
        checkpoint_seconds=seconds,
        scoring=scoring,
        patience=patience,
    )


def scoring_of(toy, scores, every=2, selected_by=None):
    """Gives the epochs of `toy` the `scores`, and lists those that were scored."""
    scored = []

    def score():
        scored.append(toy.epoch)
        return {"score": scores[toy.epoch - 1]}

    return Scoring(every, score, selected_by), scored


def test_the_epoch_with_the_lowest_validation_loss_is_kept_the_first_of_equals(tmp_path: Path):
    toy, heard = Toy([3.0, 1.0, 2.0, 1.0]), []
    history = run(toy, tmp_path, heard=heard)
    assert history.best_epoch == 2
    assert toy.counter.weight.item() == 2 * STEPS
    assert heard[1] == (2, {"train_loss": 0.5, "val_loss": 1.0})  # steps of 0, 1/2 and 2/2
    assert [epoch for epoch, _ in heard] == [1, 2, 3, 4]


class Reconstructing(Toy):
    """Selected by an error that falls as the loss rises."""

    selected_by = "val_error"

    def validate(self):
        return {"val_loss": self.losses[self.epoch - 1], "val_error": -self.losses[self.epoch - 1]}


def test_a_training_can_be_kept_by_another_metric_than_its_loss_also_after_a_stop(tmp_path: Path):
    stopped = Reconstructing([1.0, 3.0, 2.0], stop_in=(3, 1))
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path)
    toy = Reconstructing([1.0, 3.0, 2.0])
    history = run(toy, tmp_path)
    assert (history.best_epoch, history.selected_by) == (2, "val_error")
    assert toy.counter.weight.item() == 2 * STEPS


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (9, [5])])
def test_every_nth_epoch_and_the_last_are_scored_and_no_other_has_the_score(tmp_path: Path, every, expected):
    toy, heard = Toy([3.0, 1.0, 2.0, 4.0, 5.0]), []
    scoring, scored = scoring_of(toy, [0.5, 0.9, 0.7, 0.8, 0.6], every)
    history = run(toy, tmp_path, heard=heard, scoring=scoring)
    assert scored == [epoch for epoch, metrics in heard if "score" in metrics] == expected
    assert (history.best_epoch, history.selected_by, history.highest) == (2, "val_loss", False)


@pytest.mark.parametrize(("every", "best"), [(1, 1), (2, 4), (3, 5)])
def test_a_score_selects_the_scored_epoch_with_its_highest_value_the_first_of_equals(tmp_path: Path, every, best):
    toy = Toy([3.0, 1.0, 2.0, 4.0, 5.0])
    scoring, _ = scoring_of(toy, [0.9, 0.1, 0.4, 0.5, 0.5], every, "score")
    history = run(toy, tmp_path, scoring=scoring)
    assert (history.best_epoch, history.highest) == (best, True)
    assert toy.counter.weight.item() == best * STEPS


@pytest.mark.parametrize(("patience", "epochs", "best"), [(None, 6, 6), (5, 6, 6), (3, 5, 2), (2, 4, 2), (1, 3, 2)])
def test_a_training_ends_when_its_patience_is_exhausted(tmp_path: Path, patience, epochs, best):
    toy = Toy([3.0, 1.0, 2.0, 1.0, 1.5, 0.5])
    history = run(toy, tmp_path, patience=patience)
    assert (len(history.curves), history.best_epoch) == (epochs, best)
    assert toy.counter.weight.item() == best * STEPS


def test_only_scored_epochs_count_if_a_score_selects(tmp_path: Path):
    toy = Toy([1.0] * 9)
    scoring, scored = scoring_of(toy, [0, 0.9, 0, 0.8, 0, 0.7, 0, 1, 1], 2, "score")
    history = run(toy, tmp_path, scoring=scoring, patience=2)
    assert (scored, len(history.curves), history.best_epoch) == ([2, 4, 6], 6, 2)


def test_a_run_stopped_in_its_last_epoch_ends_there_too(tmp_path: Path):
    losses = [3.0, 1.0, 2.0, 1.0, 0.5]
    with pytest.raises(KeyboardInterrupt):
        run(Toy(losses, (4, 1)), tmp_path, patience=2)
    toy = Toy(losses)
    history = run(toy, tmp_path, patience=2)
    assert (len(history.curves), history.best_epoch) == (4, 2)


@pytest.mark.parametrize("stop_in", [(epoch, step) for epoch in (2, 3, 4) for step in range(STEPS)])
def test_a_resumed_run_scores_no_epoch_twice_and_skips_none(tmp_path: Path, stop_in):
    losses, scores = [1.0, 3.0, 2.0, 4.0], [0.1, 0.9, 0.3, 0.2]
    stopped = Toy(losses, stop_in)
    scoring, before = scoring_of(stopped, scores, selected_by="score")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path, scoring=scoring)
    resumed, heard = Toy(losses), []
    scoring, after = scoring_of(resumed, scores, selected_by="score")
    history = run(resumed, tmp_path, heard=heard, scoring=scoring)
    assert before + after == [2, 4]
    assert [metrics.get("score") for _, metrics in heard] == [None, 0.9, None, 0.2]
    assert (history.best_epoch, resumed.counter.weight.item()) == (2, 2 * STEPS)


def test_a_score_that_is_not_finite_is_divergence(tmp_path: Path):
    toy = Toy([3.0, 2.0])
    with pytest.raises(Diverged, match="score was nan in epoch 2"):
        run(toy, tmp_path, scoring=scoring_of(toy, [0.5, math.nan])[0])


def test_an_epoch_whose_loss_is_not_finite_is_not_scored(tmp_path: Path):
    toy = Toy([math.nan])
    scoring, scored = scoring_of(toy, [0.5])
    with pytest.raises(Diverged, match="val_loss"):
        run(toy, tmp_path, scoring=scoring)
    assert not scored


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_divergence_and_names_metric_and_epoch(tmp_path: Path, loss):
    with pytest.raises(Diverged, match=r"val_loss was -?(nan|inf) in epoch 2"):
        run(Toy([3.0, loss, 2.0]), tmp_path)


@pytest.mark.parametrize("stop_in", [(epoch, step) for epoch in (1, 3, 4) for step in range(STEPS)])
def test_a_run_stopped_in_any_step_resumes_there_and_reports_the_epochs_before(tmp_path: Path, stop_in):
    losses = [1.0, 3.0, 2.0, 4.0]
    whole, whole_heard = Toy(losses), []
    run(whole, tmp_path / "whole", heard=whole_heard)
    with pytest.raises(KeyboardInterrupt):
        run(Toy(losses, stop_in), tmp_path)
    assert steps_done(tmp_path / "c.safetensors", "f") == (stop_in[0] - 1, stop_in[1])
    resumed, heard, advanced = Toy(losses), [], []
    history = run(resumed, tmp_path, heard=heard, advanced=advanced)
    done = (stop_in[0] - 1) * STEPS + stop_in[1]
    assert advanced == [1] * (4 * STEPS - done), "only what was not done is left to do"
    assert heard == whole_heard, "means over an epoch count the steps before the stop"
    assert history.best_epoch == 1
    assert resumed.counter.weight.item() == STEPS, "the best epoch's weights, wherever the stop was"


def test_the_seconds_of_every_stretch_are_counted_and_not_those_between(tmp_path: Path):
    class Slow(Toy):
        def step(self, batch):
            time.sleep(0.05)
            return super().step(batch)

    spent, checkpoint = 0.0, tmp_path / "c.safetensors"
    for stop_in, steps in (((2, 1), 4), ((3, 1), 7)):
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run(Slow([3.0, 2.0, 1.0], stop_in), tmp_path)
        spent += time.monotonic() - began
        assert 0.05 * steps <= seconds_done(checkpoint, "f") <= spent
        time.sleep(0.2)
    assert seconds_done(checkpoint, "another") == seconds_done(tmp_path / "none", "f") == 0


def test_a_damaged_checkpoint_costs_one_checkpoint_not_the_training(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(Toy([3.0, 2.0], stop_in=(2, 2)), tmp_path)
    assert steps_done(tmp_path / "c.safetensors", "f") == (1, 2)
    (tmp_path / "c.safetensors").write_bytes(b"cut short")
    assert steps_done(tmp_path / "c.safetensors", "f") == (1, 1)
    resumed, heard = Toy([3.0, 2.0]), []
    run(resumed, tmp_path, heard=heard)
    assert resumed.counter.weight.item() == 2 * STEPS
    assert [metrics["train_loss"] for _, metrics in heard] == [1.0, 0.5]


def test_checkpoints_are_written_no_more_often_than_configured(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(Toy([1.0, 2.0], stop_in=(2, 2)), tmp_path, seconds=3600.0)
    assert not list(tmp_path.iterdir())


def test_a_step_that_is_not_finite_ends_the_run_before_it_is_written_down(tmp_path: Path):
    class Exploding(Toy):
        def step(self, batch):
            super().step(batch)
            return torch.tensor([math.nan if batch == (2, 1) else 1.0])

    with pytest.raises(Diverged, match="train_loss was nan in epoch 2"):
        run(Exploding([1.0, 1.0]), tmp_path)
    assert steps_done(tmp_path / "c.safetensors", "f") == (1, 1)


def test_a_trainer_can_report_that_training_has_diverged(tmp_path: Path):
    with pytest.raises(Diverged, match="stuck"):
        run(Toy([1.0, 2.0, 3.0], stuck_from=2), tmp_path)


def test_a_checkpoint_of_other_inputs_is_not_resumed(tmp_path: Path):
    run(Toy([1.0]), tmp_path, fingerprint="before")
    assert steps_done(tmp_path / "c.safetensors", "after") == (0, 0)
    advanced: list[int] = []
    run(Toy([1.0, 2.0]), tmp_path, fingerprint="after", advanced=advanced)
    assert advanced == [1] * 2 * STEPS


def test_a_checkpoint_of_another_layout_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(Toy([1.0]), tmp_path)
    assert steps_done(tmp_path / "c.safetensors", "f") == (1, 0)
    monkeypatch.setattr(loop, "CHECKPOINT_LAYOUT", loop.CHECKPOINT_LAYOUT + 1)
    assert steps_done(tmp_path / "c.safetensors", "f") == (0, 0)
