"""An encoder's folder: the names of its files, its preprocessing, its curves and its model card."""

import csv
import io
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from string import Template
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict

from pipeline.checked_json import read_checked
from pipeline.code_versions import PRETRAINING
from pipeline.csv_files import csv_text
from pipeline.errors import DamagedError, UserError
from pipeline.files import digest, write_json, write_text
from pipeline.images.batches import Normalization
from pipeline.markdown import cell, inline, pipe_table
from pipeline.methods import METHODS, SHOWN_LABELS, ShownLabels
from pipeline.pretraining.curves import metric_names, named_as_today
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.settings import TORCHVISION_BACKBONES, Backbone, GreyLevel, GreySpread, Side
from pipeline.training.device import training_device
from pipeline.training.distributed import group
from pipeline.training.loop import History, Metrics, OnEpoch

ENCODER = "encoder.safetensors"
ONNX = "encoder.onnx"
PREPROCESSING = "preprocessing.json"
MODEL_CARD = "model_card.md"
CURVES = "curves.csv"
CHECKPOINT = "checkpoint.safetensors"

ONNX_INPUT, ONNX_OUTPUT = "grey", "features"

_CROP = (
    "ultrasound: the insonated area, by SequenceOfUltrasoundRegions (0018,6011), else as found in the pixels, black "
    "where nothing is insonated; other modalities: the whole frame"
)
_RESIZE = (
    "to height x width, its aspect ratio is not kept; 8-bit grey, bilinear and antialiased, as by Pillow's "
    "Image.resize((width, height), Image.Resampling.BILINEAR)"
)
_ONNX = (
    f"{ONNX} makes the z-score itself: its input '{ONNX_INPUT}' is float32, 0 to 255, shape (N, 1, height, width); its "
    f"output '{ONNX_OUTPUT}' has shape (N, C, height / 32, width / 32)"
)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the encoder's input: grey, resized to `height` x `width`, then (grey − mean) / sd.

    `mean` and `sd` are grey levels, 0 to 255. The texts are for readers who have only the folder.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    backbone: Backbone
    height: Side
    width: Side
    mean: GreyLevel
    sd: GreySpread
    channels: str = "one, grey; repeated to three for the backbone"
    values: str = "0 (black) to 255 (white), then the z-score: (grey - mean) / sd"
    crop: str = _CROP
    resize: str = _RESIZE
    masking: str = "none: the encoder takes whole images; a hidden centre belongs to pretraining alone"
    onnx: str = _ONNX

    @property
    def normalization(self) -> Normalization:
        """The z-score."""
        return Normalization(self.mean, self.sd)

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""
        write_json(folder / PREPROCESSING, asdict(self))

    @staticmethod
    def read(folder: Path) -> "Preprocessing":
        """The preprocessing in `folder`; raises `UserError` if it holds no encoder, or a damaged one."""
        path = folder / PREPROCESSING
        if not path.is_file():
            raise UserError(f"{path} does not exist: pretrain this encoder first (job `pretrain`).")
        return read_checked(Preprocessing, path)


def clear(folder: Path) -> None:
    """Remove an earlier run's files, its outcome first, except a checkpoint from which training can resume."""
    names = [ENCODER, ONNX, PREPROCESSING, MODEL_CARD, CURVES, *(name for m in METHODS.values() for name in m.files)]
    for path in [folder / "outcome.json", *(folder / name for name in names), *folder.glob(".*.tmp")]:
        path.unlink(missing_ok=True)


def encoder_digest(folder: Path) -> str:
    """SHA-256 over the weights and the preprocessing in `folder`, which identifies the encoder."""
    return digest(*((folder / name).read_bytes() for name in (ENCODER, PREPROCESSING)))


def write_curves(folder: Path, curves: Sequence[Metrics]) -> None:
    """Write one row of metrics per epoch, numbered from 1, into `folder`; the cell of a metric it lacks is empty."""
    names = metric_names(curves)
    rows = ((epoch, *map(metrics.get, names)) for epoch, metrics in enumerate(curves, start=1))
    write_text(folder / CURVES, csv_text(("epoch", *names), rows))


def read_curves(folder: Path) -> dict[str, list[float]]:
    """The metrics in `folder` by name, a value per epoch (nan: it lacks the metric); empty if nothing was trained."""
    epochs = _epochs(folder)
    return {name: [metrics.get(name, math.nan) for metrics in epochs] for name in metric_names(epochs)}


def replay_metrics(folder: Path, on_epoch: OnEpoch) -> None:
    """Call `on_epoch` for every epoch in `folder`, so that a tracking run has curves even if it trained nothing."""
    for epoch, metrics in enumerate(_epochs(folder), start=1):
        on_epoch(epoch, metrics)


def _epochs(folder: Path) -> list[Metrics]:
    path = folder / CURVES
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
        return [named_as_today(_filled(row)) for row in rows]
    except (ValueError, TypeError, csv.Error):  # not text; a cell that is missing or not a number
        raise DamagedError(path) from None


def _filled(row: Mapping[str, str]) -> Metrics:
    return {name: float(value) for name, value in row.items() if name != "epoch" and value != ""}


@dataclass(frozen=True)
class LabelCount:
    """The number of training images with a label, and of those for which it is known."""

    name: str
    carried: int
    known: int


def count_labels(pool: PretrainingSet) -> tuple[LabelCount, ...]:
    """The counts of every label over the pool's training images, in the label space's order."""
    known_NL = pool.known_NL[pool.train]
    carried = (pool.labels_NL[pool.train] * known_NL).sum(dim=0, dtype=torch.int64).tolist()
    known = known_NL.sum(dim=0).tolist()
    return tuple(LabelCount(*counted) for counted in zip(pool.label_names, carried, known, strict=True))


@dataclass(frozen=True)
class ModelCard:
    """Content of an encoder's model card; failed encoders have no card."""

    method: str
    preprocessing: Preprocessing
    settings: Mapping[str, Any]
    """The recipe's settings that the method uses."""
    image_digest: str
    train_images: int
    val_images: int
    labels: tuple[LabelCount, ...]
    """Empty if the method was shown no labels."""
    label_digest: str
    shown: ShownLabels
    """Which labels these were; printed, like their digest, only if there are any."""
    history: History
    results: Sequence[tuple[str, Any]]
    """Names and values, such as the inpainting error."""
    inherited: tuple[str, ...] = ()
    """Digests of images and split of the encoders that it started from."""
    without_source: int | None = None
    """Number of the source whose images were left out."""

    def write(self, folder: Path) -> None:
        """Write it into `folder` as Markdown, after the files that it describes."""
        onnx = (folder / ONNX).is_file()
        parts = [self._head(), self._data(), self._labels(), self._training(), self._curves(), self._use(onnx)]
        write_text(folder / MODEL_CARD, "\n".join(part for part in parts if part))

    def _head(self) -> str:
        control = SHOWN_LABELS[self.shown].card if self.labels else ""
        return f"# {self.preprocessing.backbone}, pretrained by {self.method}\n\n{METHODS[self.method].card}{control}\n"

    def _data(self) -> str:
        return _section(
            "Data",
            [
                ("training images", self.train_images),
                ("validation images", self.val_images),
                *([("source left out", self.without_source)] if self.without_source is not None else []),
                ("digest of images and split", self.image_digest),
                *([("digests of images and split of its start", " ".join(self.inherited))] if self.inherited else []),
                ("label space", ", ".join(label.name for label in self.labels) or "none"),
                *([("digest of labels", self.label_digest)] if self.labels else []),
                ("input", f"grey, {self.preprocessing.height} x {self.preprocessing.width} pixels"),
                ("z-score", f"mean {self.preprocessing.mean:.4f}, deviation {self.preprocessing.sd:.4f}"),
            ],
        )

    def _labels(self) -> str:
        if not self.labels:
            return ""
        rows = [[cell(label.name), str(label.carried), str(label.known)] for label in self.labels]
        return "## Labels\n\n" + pipe_table(["label", "training images with it", "images for which it is known"], rows)

    def _training(self) -> str:
        facts = [("outcome", "ran"), ("backbone", self.preprocessing.backbone), *self.settings.items()]
        if self.history.curves:
            facts.append(("epoch kept", self._kept()))
        return _section("Training", [*facts, *self.results, ("made with", _software(self.preprocessing.backbone))])

    def _kept(self) -> str:
        history = self.history
        extreme = "highest" if history.highest else "lowest"
        return f"{history.best_epoch}, the {extreme} {history.selected_by} of {len(history.candidates)}"

    def _curves(self) -> str:
        if not self.history.curves:
            return ""
        epochs, names = enumerate(self.history.curves, start=1), metric_names(self.history.curves)
        rows = [[str(epoch), *(f"{m[name]:.5g}" if name in m else "–" for name in names)] for epoch, m in epochs]
        return "## Curves\n\n" + pipe_table(["epoch", *map(cell, names)], rows)

    def _use(self, onnx: bool) -> str:
        backbone = self.preprocessing.backbone
        library = "torchvision" if backbone in TORCHVISION_BACKBONES else "timm"
        loading = _TORCHVISION if backbone in TORCHVISION_BACKBONES else _TIMM
        network = loading.substitute(backbone=backbone, head=_HEADS.get(backbone, ""))
        return _USE.substitute(library=library, network=network) + (_USE_ONNX if onnx else _NO_ONNX)


_HEADS = {"resnet18": "fc", "resnet50": "fc", "vgg16_bn": "classifier"}
_TORCHVISION = Template("""torchvision.models.$backbone()
network.load_state_dict(load_file("encoder.safetensors"), strict=False)  # misses only the head
network.$head = torch.nn.Identity()  # your own head goes here""")
_TIMM = Template("""timm.create_model("$backbone", num_classes=0)  # your own head goes after it
network.load_state_dict(load_file("encoder.safetensors"))""")

_USE = Template("""## Use

Intended: as the starting point of networks for such images, fine-tuned and validated for their own purpose. Not
intended: diagnostic use as it is. It was trained on images of one archive; expect lower performance elsewhere.

Licence: the code that made it is Apache-2.0. This card grants no right to the weights: they derive from the training
images, so ask the owner of those before you pass them on. A network can reveal its training images.

`encoder.safetensors` holds the backbone under $library's names, without its head; `preprocessing.json` describes
how to prepare an image. In this folder:

```python
import json
from pathlib import Path

import numpy as np
import torch
import $library
from PIL import Image
from safetensors.torch import load_file

how = json.loads(Path("preprocessing.json").read_text())
network = $network
network.eval()

image = Image.open("image.png").convert("L")  # cropped as preprocessing.json says
grey = np.array(image.resize((how["width"], how["height"]), Image.Resampling.BILINEAR), np.float32)
x = torch.from_numpy((grey - how["mean"]) / how["sd"]).expand(1, 3, -1, -1)
features = network(x)
```
""")

_USE_ONNX = f"""
`{ONNX}` is the same encoder up to its features at stride 32; it computes the z-score itself:

```python
import onnxruntime

session = onnxruntime.InferenceSession("{ONNX}")
(maps,) = session.run(None, {{"{ONNX_INPUT}": grey[None, None]}})
```
"""

_NO_ONNX = f"""
There is no `{ONNX}`: onnxscript was not installed on the machine that made this encoder.
"""


def _software(backbone: Backbone) -> str:
    """Versions and devices on which the encoder's numbers may depend."""
    device = training_device()
    library = "torchvision" if backbone in TORCHVISION_BACKBONES else "timm"
    its_version = import_module(library).__version__
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return (
        f"torch {torch.__version__}, {library} {its_version}, Python {platform.python_version()}, "
        f"pretraining code {PRETRAINING}, {group().world_size} x {name}"
    )


def _section(title: str, facts: Sequence[tuple[str, Any]]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {what}: {inline(value)}" for what, value in facts) + "\n"
