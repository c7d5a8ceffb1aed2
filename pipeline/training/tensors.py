"""Tensors in files: safetensors, whole or not at all; nothing is ever unpickled.

Belongs here: writing and reading named tensors. Not here: which tensors a network or a checkpoint has.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.errors import UserError, user_error
from pipeline.files import atomic_replace

_KINDS = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8}
    | {torch.uint8, torch.bool}
)
"""Of weights, counters and random states; others compute nothing here."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named `tensors`, with strings of `metadata` in the file's header, to the safetensors file `path`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_replace(path) as temporary:
        # `save_file` would write through a temporary file of its own, which a killed process leaves behind for good.
        temporary.write_bytes(save(plain, metadata=dict(metadata or {})))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of the safetensors file `path`, on the CPU; raises `UserError` where it is not one."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        raise user_error(f"{path} cannot be opened: {error.strerror or type(error).__name__}.", error) from None
    strange = next((tensor.dtype for tensor in tensors.values() if tensor.dtype not in _KINDS), None)
    if strange is not None:
        raise UserError(f"{path} holds numbers of the kind {str(strange).removeprefix('torch.')}, as no network does.")
    return tensors


def require_finite(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors`, read at `path`; raises `UserError` where one holds what is no finite number."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are no finite numbers: it cannot be applied.")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Read the strings in the header of the safetensors file `path`; raises `UserError` where it is not one."""
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: SafetensorError) -> UserError:
    return UserError(f"{path} is not a safetensors file: {' '.join(str(error).split())[:200]}.")
