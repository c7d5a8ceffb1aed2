"""Checkpoints that resume training bit for bit: networks, optimizers, random numbers and a JSON state in one file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.training.tensors import read_metadata, read_tensors, write_tensors


@dataclass(frozen=True)
class Trained:
    """The networks and optimizers that a training step changes, by name: the content of a checkpoint."""

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint on disk: its file and the JSON state in it."""

    path: Path
    state: Any


def write_checkpoint(path: Path, trained: Trained, state: Any, extra: Mapping[str, Tensor] | None = None) -> None:
    """Write `trained`, torch's random states, `state` as JSON and `extra` tensors to `path`, whole or not at all.

    The previous file is kept beside it, so that a damaged file loses one checkpoint, not the training.
    """
    tensors = {f"extra/{name}": tensor for name, tensor in (extra or {}).items()}
    tensors |= {f"random/{device}": numbers for device, numbers in _random_states()}
    for name, network in trained.networks.items():
        tensors |= {f"network/{name}/{key}": tensor for key, tensor in network.state_dict().items()}
    for name, optimizer in trained.optimizers.items():
        tensors |= {f"optimizer/{name}/{i}/{key}": tensor for i, key, tensor in _slots(optimizer)}
    if path.is_file():
        path.replace(_previous(path))
    write_tensors(path, tensors, {"state": json.dumps(state)})


def newest_checkpoint(path: Path) -> SavedCheckpoint | None:
    """The checkpoint at `path`, the previous one if that is missing or damaged, None if both are."""
    for candidate in (path, _previous(path)):
        try:
            if candidate.is_file():
                return SavedCheckpoint(candidate, json.loads(read_metadata(candidate)["state"]))
        except (UserError, KeyError, ValueError, RecursionError):
            continue  # truncated or overwritten
    return None


def restore_checkpoint(saved: SavedCheckpoint, trained: Trained) -> dict[str, Tensor]:
    """Load a checkpoint into `trained` and torch's generators, in place; returns its extra tensors.

    The optimizers keep the settings (learning rates) of `trained`. Raises `UserError` if the file is damaged and
    RuntimeError if it belongs to another network.
    """
    tensors = read_tensors(saved.path)
    for name, network in trained.networks.items():
        network.load_state_dict(tensors_under(tensors, f"network/{name}/"))
    for name, optimizer in trained.optimizers.items():
        _restore_slots(optimizer, tensors_under(tensors, f"optimizer/{name}/"))
    _restore_random(tensors_under(tensors, "random/"))
    return tensors_under(tensors, "extra/")


def remove_checkpoints(path: Path) -> None:
    """Remove the checkpoint at `path` and the previous one."""
    for each in (path, _previous(path)):
        each.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-previous")


def _random_states() -> Iterator[tuple[str, Tensor]]:
    """The states of the global generators, which dropout draws from; all other draws follow from seed and epoch."""
    yield "cpu", torch.get_rng_state()
    if torch.cuda.is_available():
        yield "cuda", torch.cuda.get_rng_state()


def _restore_random(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _slots(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, str, Tensor]]:
    """An optimizer's state tensors: parameter number, name, tensor."""
    for number, slots in optimizer.state_dict()["state"].items():
        for key, tensor in slots.items():
            yield number, key, tensor


def _restore_slots(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = _in_layout_of(parameters[int(number)], tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _in_layout_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` in the memory layout of `parameter`: a fused step walks both in storage order."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor


def tensors_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The `tensors` whose names start with `prefix`, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
