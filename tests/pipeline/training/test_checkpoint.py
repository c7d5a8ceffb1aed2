"""Checkpoints: training goes on as if it had never stopped.

Belongs here: exactness and layout of what is restored. Not here: the loop over epochs.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.training.checkpoint import Trained, checkpoint_state, restore_checkpoint, write_checkpoint
from pipeline.training.device import adam, on_device
from pipeline.training.seeds import generator, seeded


def fresh(seed=0):
    with seeded(seed):
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    network = on_device(network, torch.device("cpu"))
    return Trained({"network": network}, {"adam": adam(network.parameters(), 0.01, (0.9, 0.999))})


def train(trained, first, last):
    network, optimizer = trained.networks["network"], trained.optimizers["adam"]
    for step in range(first, last):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 8, 8, generator=generator(0, step))).square().mean().backward()
        optimizer.step()


def test_a_restored_run_ends_with_the_same_bits_in_channels_last_with_fused_adam(tmp_path: Path):
    whole = fresh()
    train(whole, 0, 6)
    stopped = fresh()
    train(stopped, 0, 3)
    write_checkpoint(tmp_path / "checkpoint.safetensors", stopped, {"epoch": 3})
    resumed = fresh(seed=9)
    state, _ = restore_checkpoint(tmp_path / "checkpoint.safetensors", resumed)
    train(resumed, 3, 6)
    assert state == {"epoch": 3}
    ends = whole.networks["network"].state_dict()
    assert all(torch.equal(tensor, ends[name]) for name, tensor in resumed.networks["network"].state_dict().items())


def test_state_and_extra_tensors_come_back(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    curves = [{"val_loss": 0.1 + 0.2}, {"val_loss": 1e-17}]
    write_checkpoint(path, fresh(), {"curves": curves}, {"best/weight": torch.arange(3.0)})
    assert checkpoint_state(path) == {"curves": curves}
    _, extra = restore_checkpoint(path, fresh())
    assert extra.keys() == {"best/weight"}
    assert torch.equal(extra["best/weight"], torch.arange(3.0))


def test_no_checkpoint_has_no_state(tmp_path: Path):
    assert checkpoint_state(tmp_path / "checkpoint.safetensors") is None


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(UserError, match=r"checkpoint\.safetensors is not a safetensors file"):
        checkpoint_state(tmp_path / "checkpoint.safetensors")


def test_nothing_but_the_checkpoint_is_left_beside_it(tmp_path: Path):
    for epoch in (1, 2):
        write_checkpoint(tmp_path / "checkpoint.safetensors", fresh(), {"epoch": epoch})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
