"""Checkpoints from which training goes on bit for bit.

Belongs here: networks, optimizers and a JSON state in one file, and back. Not here: when to write one.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.tensors import read_tensors, read_texts, write_tensors


@dataclass(frozen=True)
class Trained:
    """Everything a step of training changes, by name: what a checkpoint holds."""

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer] = field(default_factory=dict)


def write_checkpoint(path: Path, trained: Trained, state: Any, extra: Mapping[str, Tensor] | None = None) -> None:
    """Write `trained`, JSON-able `state` and `extra` tensors to the one file `path`, whole or not at all.

    Random numbers need no place in it at an epoch's end: they are drawn by seed and epoch (`pipeline.training.seeds`).
    """
    tensors = {f"extra/{name}": tensor for name, tensor in (extra or {}).items()}
    for name, network in trained.networks.items():
        tensors |= {f"network/{name}/{key}": tensor for key, tensor in network.state_dict().items()}
    for name, optimizer in trained.optimizers.items():
        tensors |= {f"optimizer/{name}/{i}/{key}": tensor for i, key, tensor in _slots(optimizer)}
    write_tensors(path, tensors, {"state": json.dumps(state)})


def restore_checkpoint(path: Path, trained: Trained) -> tuple[Any, dict[str, Tensor]]:
    """Put the checkpoint at `path` into `trained`, in place; returns its state and its extra tensors.

    The optimizers' settings (learning rates) stay those of `trained`. Raises `UserError` where the file is damaged and
    RuntimeError where it is another network's.
    """
    tensors = read_tensors(path)
    for name, network in trained.networks.items():
        network.load_state_dict(_under(tensors, f"network/{name}/"))
    for name, optimizer in trained.optimizers.items():
        _restore_slots(optimizer, _under(tensors, f"optimizer/{name}/"))
    return checkpoint_state(path), _under(tensors, "extra/")


def checkpoint_state(path: Path) -> Any:
    """The JSON state of the checkpoint at `path`, without reading its tensors; None where there is no checkpoint."""
    return json.loads(read_texts(path)["state"]) if path.is_file() else None


def _slots(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, str, Tensor]]:
    """An optimizer's per-parameter tensors: number of the parameter, name of the slot, tensor."""
    for number, slots in optimizer.state_dict()["state"].items():
        for key, tensor in slots.items():
            yield number, key, tensor


def _restore_slots(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        like = parameters[int(number)]
        state.setdefault(int(number), {})[key] = _laid_out_as(like, tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` in the memory layout of `parameter`: a fused step walks both in storage order."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
