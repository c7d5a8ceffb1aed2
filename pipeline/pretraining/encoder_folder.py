"""An encoder's folder: the files by which someone who has only that folder can use the encoder right.

Belongs here: names, contents and reading of its files. Not here: what is trained.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_json, write_json, write_text
from pipeline.images.batches import Normalization
from pipeline.recipe import Backbone, Method, Pretraining
from pipeline.training.loop import SELECTED_BY, History, Metrics

ENCODER = "encoder.safetensors"
DECODER = "decoder.safetensors"
PREPROCESSING = "preprocessing.json"
MODEL_CARD = "model_card.md"
CURVES = "curves.csv"
INPAINTING = "inpainting.json"
METADATA = "metadata.json"
CHECKPOINT = "checkpoint.safetensors"

_CROP = (
    "the insonated area, by SequenceOfUltrasoundRegions (0018,6011), else as found in the pixels, black where nothing "
    "is insonated; then resized to height x width, its aspect ratio is not kept"
)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the encoder's input: grey, resized to `height` x `width`, then (grey − mean) / sd."""

    backbone: Backbone
    height: int
    width: int
    mean: float
    sd: float
    channels: str = "grey, one channel of 0 to 255 before the z-score; repeated to three for the backbone"
    crop: str = _CROP

    @property
    def normalization(self) -> Normalization:
        """The z-score."""
        return Normalization(self.mean, self.sd)

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""
        write_json(folder / PREPROCESSING, asdict(self))

    @staticmethod
    def read(folder: Path) -> "Preprocessing":
        """The preprocessing in `folder`; raises `UserError` where it holds no encoder."""
        path = folder / PREPROCESSING
        if not path.is_file():
            raise UserError(f"{path} does not exist: pretrain this encoder first (job `pretrain`).")
        return Preprocessing(**read_json(path))


def write_curves(folder: Path, curves: Sequence[Metrics]) -> None:
    """Write one row of metrics per epoch, numbered from 1, into `folder`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *curves[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": epoch, **metrics} for epoch, metrics in enumerate(curves, start=1))
    write_text(folder / CURVES, text.getvalue())


@dataclass(frozen=True)
class ModelCard:
    """What the card of an encoder says."""

    method: Method
    preprocessing: Preprocessing
    settings: Pretraining
    image_digest: str
    train_images: int
    val_images: int
    label_names: tuple[str, ...]
    """The labels that the method was shown; none where it was shown none."""
    history: History
    results: Sequence[tuple[str, Any]]
    """What came out, as (what, value), such as the inpainting error."""

    def write(self, folder: Path) -> None:
        """Write it into `folder` as Markdown."""
        parts = [self._head(), self._data(), self._training(), self._curves(), self._use()]
        write_text(folder / MODEL_CARD, "\n".join(part for part in parts if part))

    def _head(self) -> str:
        return f"# {self.preprocessing.backbone}, pretrained by {self.method}\n\n{_METHODS[self.method]}\n"

    def _data(self) -> str:
        labels = ", ".join(self.label_names) or "none"
        return _section(
            "Data",
            [
                ("training images", self.train_images),
                ("validation images", self.val_images),
                ("digest of images and split", self.image_digest),
                ("label space", labels),
                ("input", f"grey, {self.preprocessing.height} x {self.preprocessing.width} pixels"),
                ("z-score", f"mean {self.preprocessing.mean:.4f}, deviation {self.preprocessing.sd:.4f}"),
            ],
        )

    def _training(self) -> str:
        if not self.history.curves:
            return ""
        settings = self.settings.model_dump(mode="json", exclude={"backbones", "methods", "imagenet_weights"})
        chosen = [("epoch kept", f"{self.history.best_epoch}, the lowest {SELECTED_BY} of {len(self.history.curves)}")]
        return _section("Training", [*settings.items(), *chosen, *self.results])

    def _curves(self) -> str:
        if not self.history.curves:
            return ""
        names = list(self.history.curves[0])
        lines = [_row(["epoch", *names]), _row(["---"] * (len(names) + 1))]
        for epoch, metrics in enumerate(self.history.curves, start=1):
            lines.append(_row([str(epoch), *(f"{metrics[name]:.5g}" for name in names)]))
        return "## Curves\n\n" + "\n".join(lines) + "\n"

    def _use(self) -> str:
        return _USE.format(backbone=self.preprocessing.backbone)


_METHODS: dict[Method, str] = {
    "baseline": "Random initialization, not trained: what every other method starts from and is compared with.",
    "imagenet": "Trained by others to classify natural images (torchvision's IMAGENET1K_V1); not trained here.",
    "dcm": "Trained to predict the weak labels that the DICOM tags carry.",
    "ce": "Trained to inpaint the hidden centre of ultrasound images (context encoder), without labels.",
    "ce_dcm": "Trained to inpaint the hidden centre of ultrasound images, against a discriminator that knows the weak "
    "labels of the DICOM tags.",
}

_USE = """## Use

Intended: as the starting point of networks for ultrasound images, fine-tuned and validated for their own purpose.
Not intended: any diagnostic use as it is. It has seen the images of one archive; expect less elsewhere.

`encoder.safetensors` holds the backbone under torchvision's names, without its head; `preprocessing.json` says how an
image becomes its input.

```python
import json
import torch, torchvision
from safetensors.torch import load_file

network = torchvision.models.{backbone}()
network.load_state_dict(load_file("encoder.safetensors"), strict=False)  # misses only the head
how = json.load(open("preprocessing.json"))
grey = torch.zeros(1, 1, how["height"], how["width"])  # your image, 0 to 255
x = ((grey - how["mean"]) / how["sd"]).expand(-1, 3, -1, -1)
```
"""


def _section(title: str, facts: Sequence[tuple[str, Any]]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {what}: {value}" for what, value in facts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
