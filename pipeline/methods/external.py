"""Method external: an encoder made by others, or by another recipe, as an arm."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.files import digest
from pipeline.methods.method import EncoderSettings, Method, register
from pipeline.settings import Backbone, Count, GreyLevel, GreySpread, Settings

_SAFETENSORS, _ONNX = ".safetensors", ".onnx"
_OF_A_FOLDER = ("encoder.safetensors", "preprocessing.json")


class ExternalEncoder(Settings):
    """One encoder made elsewhere, with the preprocessing that it expects."""

    weights: Annotated[str, Field(min_length=1)]
    """A safetensors file with the backbone under the names of torchvision or timm, the folder of an encoder, or an ONNX
    file, which is scored as it is and cannot be fine-tuned.
    """
    mean: GreyLevel | None = None
    """Of the z-score, in grey levels; an encoder's folder has its own."""
    sd: GreySpread | None = None
    size: tuple[Count, Count] | None = None
    """Height and width of the images that it was trained on, for the model card: it is applied at the recipe's size."""

    @property
    def is_file(self) -> bool:
        """Whether `weights` is a file, not a folder."""
        return self.weights.endswith(_SAFETENSORS) or self.is_onnx

    @property
    def is_onnx(self) -> bool:
        """Whether `weights` is an ONNX file, of which PyTorch makes no network."""
        return self.weights.endswith(_ONNX)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that determine the encoder."""
        path = Path(self.weights)
        return (path,) if self.is_file else tuple(path / name for name in _OF_A_FOLDER)

    @model_validator(mode="after")
    def _states_its_preprocessing(self) -> "ExternalEncoder":
        if self.is_file and (self.mean is None or self.sd is None):
            raise ValueError(
                f"{Path(self.weights).name} needs mean and sd, the z-score that it expects, in grey levels"
            )
        if not self.is_file and (self.mean, self.sd, self.size) != (None, None, None):
            raise ValueError(
                "weights is neither a .safetensors file nor an .onnx file nor the folder of an encoder, which has "
                "its own preprocessing: a folder takes no mean, sd and size"
            )
        return self


class ExternalSettings(EncoderSettings):
    """Which encoder of each backbone."""

    external: Annotated[Mapping[Backbone, ExternalEncoder], Field(exclude_if=lambda named: not named)] = {}
    """Encoders made elsewhere; the method is unavailable on other backbones."""

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """The preprocessing, and the digest of the files in place of their path, which can contain a name."""
        one = self.external.get(backbone)
        if one is None:
            return {"weights": "missing"}
        present = all(file.is_file() for file in one.files)
        weights = digest(*(file.read_bytes() for file in one.files)) if present else "missing"
        return one.model_dump(mode="json", exclude={"weights"}, exclude_none=True) | {"weights": weights}


EXTERNAL = register(
    Method(
        name="external",
        label="External",
        description="an encoder made elsewhere",
        card="Made elsewhere from weights that the recipe names; not trained here. Its z-score is its own.",
        trainer="pipeline.pretraining.untrained:External",
        settings=ExternalSettings,
    )
)
