"""Checkpoints: a resumed training is bit-identical to an uninterrupted one."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.training.checkpoint import (
    SavedCheckpoint,
    Trained,
    newest_checkpoint,
    remove_checkpoints,
    restore_checkpoint,
    write_checkpoint,
)
from pipeline.training.device import adam, to_device
from pipeline.training.seeds import generator, seeded


def fresh(seed=0):
    with seeded(seed):
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    network = to_device(network, torch.device("cpu"))
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
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, stopped, {"epoch": 3})
    resumed = fresh(seed=9)
    saved = newest_checkpoint(path)
    assert saved == SavedCheckpoint(path, {"epoch": 3})
    restore_checkpoint(saved, resumed)
    train(resumed, 3, 6)
    ends = whole.networks["network"].state_dict()
    assert all(torch.equal(tensor, ends[name]) for name, tensor in resumed.networks["network"].state_dict().items())


def test_state_and_extra_tensors_come_back(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    curves = [{"val_loss": 0.1 + 0.2}, {"val_loss": 1e-17}]
    write_checkpoint(path, fresh(), {"curves": curves}, {"best/weight": torch.arange(3.0)})
    saved = newest_checkpoint(path)
    assert saved is not None
    assert saved.state == {"curves": curves}
    extra = restore_checkpoint(saved, fresh())
    assert extra.keys() == {"best/weight"}
    assert torch.equal(extra["best/weight"], torch.arange(3.0))


def test_random_numbers_continue_from_their_saved_state(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    with seeded(0, "test"):
        torch.rand(3)
        write_checkpoint(path, fresh(), {})
        expected = torch.rand(5)
    with seeded(1, "test"):
        saved = newest_checkpoint(path)
        assert saved is not None
        restore_checkpoint(saved, fresh())
        assert torch.equal(torch.rand(5), expected)


def test_the_previous_checkpoint_is_kept_and_used_if_the_newest_is_damaged(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    for epoch in (1, 2, 3):
        write_checkpoint(path, fresh(), {"epoch": epoch})
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "checkpoint-previous.safetensors"}
    assert newest_checkpoint(path).state == {"epoch": 3}
    for damage in (b"", b"\x80\x04not safetensors", path.read_bytes()[:-20]):
        path.write_bytes(damage)
        assert newest_checkpoint(path).state == {"epoch": 2}
    path.unlink()  # killed between the two renames
    assert newest_checkpoint(path).state == {"epoch": 2}
    (tmp_path / "checkpoint-previous.safetensors").write_bytes(b"damaged too")
    assert newest_checkpoint(path) is None


def test_another_networks_checkpoint_is_no_checkpoint_of_this_one(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, Trained({"network": nn.Linear(2, 2)}), {})
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key"):
        restore_checkpoint(SavedCheckpoint(path, {}), fresh())


def test_a_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(UserError, match=r"checkpoint\.safetensors"):
        restore_checkpoint(SavedCheckpoint(path, {}), fresh())


def test_both_are_removed_together(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    assert newest_checkpoint(path) is None
    for epoch in (1, 2):
        write_checkpoint(path, fresh(), {"epoch": epoch})
    remove_checkpoints(path)
    assert not list(tmp_path.iterdir())
