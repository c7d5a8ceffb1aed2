"""Features of an encoder in an ONNX file that others made, by onnxruntime on the CPU; the file is not trusted."""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.errors import UserError
from pipeline.frozen.evaluate import Scored, scores_of
from pipeline.frozen.problem import Problem
from pipeline.images.batches import Normalization
from pipeline.methods.external import ExternalEncoder
from pipeline.representation.features import BATCH, LEVELS, Features, map_projection, maps_of
from pipeline.settings import STRIDE

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

MAX_BYTES: Final = 2**30
MAX_INPUT: Final = 2**26
"""Numbers in the input of a fixed shape: 256 MiB."""
MAX_FEATURES: Final = 2**16
_DOMAINS = {"", "ai.onnx"}
_CHANNELS = (1, 3)


def onnx_scores(named: ExternalEncoder, problem: Problem) -> list[Scored]:
    """The scores of the ONNX encoder `named` on `problem`; none on masks if it gives no feature maps.

    Raises `UserError` as `OnnxEncoder`, and if the settings lack its z-score.
    """
    if named.mean is None or named.sd is None:
        raise UserError(f"{named.weights} needs mean and sd.")
    encoder = OnnxEncoder(Path(named.weights))
    features = encoder.features(Normalization(named.mean, named.sd), problem.images_NHW, problem.is_segmentation)
    if problem.is_segmentation and not len(features.maps_NCHW):
        return []
    return scores_of(features, problem)


class OnnxEncoder:
    """An encoder from images (N, 1 or 3, H, W) to features (N, D) or maps (N, C, H / 32, W / 32), all float32.

    Raises `UserError` if onnxruntime is not installed, and with the reason if the file is refused: it is larger than
    `MAX_BYTES`, no ONNX model, keeps weights in another file, has operators beyond ONNX's own, functions or control
    flow, or another input or output.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if find_spec("onnxruntime") is None:
            raise UserError(f"{path} needs onnxruntime: install sonotag[onnx].")
        import onnxruntime  # noqa: PLC0415 -- an extra

        content = self._checked_content()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its own log repeats what is raised
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise self._refusal(f"onnxruntime cannot load it ({type(error).__name__})") from None
        self._input, self._shape = self._checked_input()
        if len(self._session.get_outputs()) != 1:
            raise self._refusal("it has more than one output, or none")

    def features(self, normalization: Normalization, images_NHW: NDArray[np.uint8], maps: bool) -> Features:
        """The features of the images, `maps` only if they are needed and the encoder gives maps at stride 32.

        Raises `UserError` if the encoder fails, or if its features have another shape or are not finite.
        """
        pooled, found, projection = [], [], None
        for batch_NHW in torch.from_numpy(images_NHW).split(self._batch):
            output = self._run(normalization.apply(batch_NHW))
            pooled.append(output if output.ndim == 2 else output.mean((2, 3)))
            if maps and output.ndim == 4:
                projection = map_projection(LEVELS - 1, output.shape[1]) if projection is None else projection
                found.append(maps_of([output], [projection], images_NHW.shape[1:]))
        maps_NCHW = np.concatenate(found) if found else np.empty((0, 0, 0, 0), np.float16)
        return Features(torch.cat(pooled).numpy(), maps_NCHW)

    @property
    def _batch(self) -> int:
        """Images at a time."""
        return self._shape[0] if isinstance(self._shape[0], int) else BATCH

    def _run(self, x_N1HW: Tensor) -> Tensor:
        """The output for z-scores of one grey channel, at the recipe's size."""
        count, channels, own = len(x_N1HW), self._shape[1], tuple(x_N1HW.shape[2:])
        sides = tuple(
            fixed if isinstance(fixed, int) else side for fixed, side in zip(self._shape[2:], own, strict=True)
        )
        if sides != own:
            x_N1HW = interpolate(x_N1HW, sides, mode="bilinear", antialias=True)
        x_NCHW = x_N1HW.expand(-1, channels, -1, -1)
        if isinstance(self._shape[0], int):
            x_NCHW = torch.cat([x_NCHW, x_NCHW.new_zeros(self._batch - count, *x_NCHW.shape[1:])])
        try:
            (output,) = self._session.run(None, {self._input: x_NCHW.contiguous().numpy()})
        except Exception as error:
            raise self._refusal(f"onnxruntime cannot apply it ({type(error).__name__})") from None
        return self._checked_output(output, x_NCHW)[:count]

    def _checked_output(self, output: Any, x_NCHW: Tensor) -> Tensor:
        at_stride = tuple(side // STRIDE for side in x_NCHW.shape[2:])
        is_floats = isinstance(output, np.ndarray) and output.dtype == np.float32
        shape: tuple[int, ...] = output.shape if is_floats else ()
        pooled, mapped = len(shape) == 2, len(shape) == 4 and shape[2:] == at_stride
        if not (pooled or mapped) or shape[0] != len(x_NCHW) or not 0 < shape[1] <= MAX_FEATURES:
            raise self._refusal(
                f"its output is neither features (N, D) nor maps at stride {STRIDE} (N, C, H / {STRIDE}, W / {STRIDE}) "
                f"of N images in float32, with at most {MAX_FEATURES} channels"
            )
        if not np.isfinite(output).all():
            raise self._refusal("its features are not finite")
        return torch.from_numpy(output)

    def _checked_input(self) -> tuple[str, tuple[Any, ...]]:
        """Name and shape of the input; a side that is not fixed is no integer."""
        inputs = self._session.get_inputs()
        shape = tuple(inputs[0].shape) if len(inputs) == 1 and inputs[0].type == "tensor(float)" else ()
        if len(shape) != 4 or shape[1] not in _CHANNELS:
            raise self._refusal("its input is not float32 of shape (N, 1 or 3, H, W)")
        fixed = [side for side in shape if isinstance(side, int)]
        if min(fixed) < 1 or math.prod(fixed) > MAX_INPUT:
            raise self._refusal(f"its input has no number, or more than {MAX_INPUT}")
        return inputs[0].name, shape

    def _checked_content(self) -> bytes:
        """The file's bytes if they are a model whose weights and operators are all in it, or ONNX's own."""
        import onnx  # noqa: PLC0415 -- slow to import

        if not self._path.is_file():
            raise UserError(f"{self._path} does not exist.")
        if self._path.stat().st_size > MAX_BYTES:
            raise self._refusal(f"it is larger than {MAX_BYTES // 2**20} MiB")
        content = self._path.read_bytes()
        try:
            model = onnx.load_model_from_string(content)
        except Exception:
            raise self._refusal("it is no ONNX model") from None
        if reason := _objection(model):
            raise self._refusal(reason)
        return content

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"External encoder {self._path}: {reason}.")


def _objection(model: "ModelProto") -> str | None:
    """Why the model is not run; None if there is no reason."""
    import onnx  # noqa: PLC0415 -- as above

    if not model.graph.node:
        return "it is no ONNX model"
    if model.functions or model.graph.sparse_initializer:
        return "it has functions or sparse weights"
    for node in model.graph.node:
        if node.domain not in _DOMAINS:
            return f"its operator {node.op_type[:40]!r} is not ONNX's own"
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return f"its operator {node.op_type[:40]!r} has a graph of its own (control flow)"
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        return "it keeps weights in another file: export it with all weights inside"
    return None


def _tensors(model: "ModelProto") -> "Iterator[TensorProto]":
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
