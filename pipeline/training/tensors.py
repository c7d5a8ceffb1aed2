"""Named tensors in safetensors files, written whole or not at all; nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.errors import UserError, user_error
from pipeline.files import atomic_replace

_DTYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8}
    | {torch.uint8, torch.bool}
)
"""The dtypes of weights, counters and random states."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named `tensors`, with `metadata` in the file's header, to the safetensors file `path`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_replace(path) as temporary:
        # `save_file` writes a temporary file of its own, which a killed process leaves behind.
        temporary.write_bytes(save(plain, metadata=dict(metadata or {})))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of the safetensors file `path`, on the CPU; raises `UserError` if it is not one."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        raise user_error(f"{path} cannot be opened: {error.strerror or type(error).__name__}.", error) from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise UserError(f"{path}: tensor {name[:100]!r} has the unsupported dtype {tensor.dtype}.")
    return tensors


def require_finite(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors`, read at `path`; raises `UserError` if one holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path}: tensor {name[:100]!r} holds NaN or infinity, so the network cannot be used.")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in the header of the safetensors file `path`; raises `UserError` if it is not one."""
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: SafetensorError) -> UserError:
    return UserError(f"{path} is not a safetensors file: {' '.join(str(error).split())[:200]}.")
