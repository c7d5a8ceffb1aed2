"""Tensors in files: safetensors, whole or not at all; nothing is ever unpickled.

Belongs here: writing and reading named tensors. Not here: which tensors a network or a checkpoint has.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named `tensors`, with strings of `metadata` in the file's header, to the safetensors file `path`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        # `save_file` would write through a temporary file of its own, which a killed process leaves behind for good.
        temporary.write_bytes(save(plain, metadata=dict(metadata or {})))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of the safetensors file `path`, on the CPU; raises `UserError` where it is not one."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}.") from None
    return tensors


def read_texts(path: Path) -> dict[str, str]:
    """Read the strings in the header of the safetensors file `path`; raises `UserError` where it is not one."""
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}.") from None
