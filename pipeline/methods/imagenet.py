"""Method imagenet: ImageNet weights of torchvision or timm, from a local file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.files import digest
from pipeline.methods.method import EncoderSettings, Method, register
from pipeline.settings import Backbone


class ImagenetSettings(EncoderSettings):
    """Which file holds the weights."""

    imagenet_weights: Mapping[Backbone, str] = {}
    """Local safetensors files of ImageNet weights, per backbone; the method is unavailable without."""

    def weights_file(self, backbone: Backbone) -> Path | None:
        """The file for `backbone`, None if no file is named."""
        named = self.imagenet_weights.get(backbone)
        return None if named is None else Path(named)

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """The digest of the weights, or the path of a missing file."""
        file = self.weights_file(backbone)
        return {"weights": digest(file.read_bytes()) if file is not None and file.is_file() else str(file)}


IMAGENET = register(
    Method(
        name="imagenet",
        label="ImageNet",
        description="ImageNet weights of torchvision or timm",
        card="Trained by others to classify natural images (torchvision's IMAGENET1K_V1, or timm's); not trained here.",
        trainer="pipeline.pretraining.untrained:Imagenet",
        settings=ImagenetSettings,
    )
)
