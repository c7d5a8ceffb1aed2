"""An encoder as an ONNX graph from grey levels to features, for programs without PyTorch."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.files import atomic_replace
from pipeline.networks import encoders
from pipeline.networks.encoders import Encoder, load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, ONNX, ONNX_INPUT, ONNX_OUTPUT, Preprocessing
from pipeline.progress import Log
from pipeline.settings import Backbone


def export_onnx(folder: Path, log: Log) -> None:
    """Write `encoder.onnx` from the weights and the preprocessing in `folder`, whole or not at all.

    Input `grey`: float32 grey levels, 0 to 255, shape (N, 1, H, W) of any N, at the size of the preprocessing; the
    z-score is part of the graph. Output `features`: stride 32, shape (N, C, H/32, W/32), those of the encoder in
    evaluation mode. The same encoder gives the same bytes. Without onnxscript nothing is written, which is logged.
    """
    if find_spec("onnxscript") is None:
        log(f"{folder.name}: no {ONNX}, since onnxscript is not installed")
        return
    how = Preprocessing.read(folder)
    encoder = load_encoder(how.backbone, folder / ENCODER)
    weights = _FromGreyLevels(encoder, how.mean, how.sd).state_dict()
    graph = _graph(how.backbone, type(encoder).__name__, how.height, how.width)
    program = _with_weights(graph, weights)
    with atomic_replace(folder / ONNX) as temporary:
        program.save(temporary, external_data=False)


class _FromGreyLevels(nn.Module):
    """The z-score, then the encoder; mean and deviation are tensors, so that they are weights of the graph."""

    mean: Tensor
    sd: Tensor

    def __init__(self, encoder: Encoder, mean: float = 0.0, sd: float = 1.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("sd", torch.tensor(sd))

    def forward(self, grey_N1HW: Tensor) -> Tensor:
        features_NCHW: Tensor = self.encoder((grey_N1HW - self.mean) / self.sd)
        return features_NCHW


@cache  # tracing takes seconds, and one graph serves all encoders of a backbone
def _graph(backbone: Backbone, kind: str, height: int, width: int) -> torch.onnx.ONNXProgram:
    """The graph of an encoder without its weights; `kind` names its class, for the cache."""
    with torch.device("meta"):
        network = _FromGreyLevels(encoders.build_encoder(backbone)).eval().requires_grad_(False)
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 1, height, width),),
            dynamo=True,
            optimize=False,  # would look at weights
            verbose=False,
            input_names=[ONNX_INPUT],
            output_names=[ONNX_OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program


def _with_weights(graph: torch.onnx.ONNXProgram, weights: dict[str, Tensor]) -> torch.onnx.ONNXProgram:
    """A copy of `graph` with `weights`, batch norm folded into the convolutions, and without metadata.

    The exporter records the source line of each node, which contains paths of this machine.
    """
    program = torch.onnx.ONNXProgram(graph.model.clone(), graph.exported_program)
    program.apply_weights({name: weights[name] for name in program.model.graph.initializers})
    program.optimize()
    graph_ir = program.model.graph
    values = [*graph_ir.inputs, *graph_ir.outputs, *graph_ir.initializers.values()]
    for noted in [program.model, graph_ir, *graph_ir, *values, *(value for node in graph_ir for value in node.outputs)]:
        noted.metadata_props.clear()
    return program
