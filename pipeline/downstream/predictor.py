"""A fine-tuned model applied to grey images of its input size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.downstream.losses import class_probabilities
from pipeline.downstream.model_folder import load_network, read_description
from pipeline.downstream.ordinal import decode
from pipeline.training.device import configure_backends, to_device, training_device


class Predictor:
    """The model in a folder written by `finetune`; raises `UserError` if there is none."""

    def __init__(self, folder: Path) -> None:
        self.description = read_description(folder)
        self._device = training_device()
        configure_backends(self._device)
        self._network = to_device(load_network(folder, self.description), self._device)

    def scores(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """P(class > t) of each of `images`, grey and of the model's size: shape (N, T), 0 to 1."""
        scores: npt.NDArray[np.float32] = self._logits(images).sigmoid().cpu().numpy()
        return scores

    def classes(self, scores_NT: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The class of each image by its scores."""
        return decode(scores_NT)

    def probabilities(self, images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Class probabilities of each pixel of `images`, grey and of the model's size: shape (N, C + 1, H, W)."""
        return class_probabilities(self._logits(images))

    @torch.no_grad()
    def _logits(self, images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        grey_NHW = torch.from_numpy(np.stack(images)).to(self._device)
        logits: Tensor = self._network(self.description.normalization.apply(grey_NHW))
        return logits.float()


def classes_at(probabilities_CHW: Tensor, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The most likely class of each pixel after resizing the probabilities to `height` x `width`.

    Resizing probabilities, not classes, keeps outlines smooth in a larger image.
    """
    resized = interpolate(probabilities_CHW[None], size=(height, width), mode="bilinear", align_corners=False)
    classes: npt.NDArray[np.uint8] = resized[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return classes
