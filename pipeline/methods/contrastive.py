"""What the contrastive methods share: settings, trainer and curves (`simclr`, `supcon`, `metadata_pairs`)."""

from typing import Any

from pipeline.methods.method import TrainingSettings
from pipeline.settings import Backbone, Count, Rate, Views

TRAINER = "pipeline.pretraining.contrastive:ContrastiveRun"
CURVE_TITLES = {"train_loss": "contrastive loss, training", "val_loss": "contrastive loss, validation"}


class ContrastiveSettings(TrainingSettings, Views):
    """Settings of the contrastive losses, and of the views, which take the place of `augmentation`."""

    temperature: Rate = 0.1
    """Divides the cosine similarities."""
    projection: Count = 128
    """Length of the embeddings that are compared."""

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """All settings but the augmentation of other methods."""
        settings = super().decisive(backbone)
        del settings["augmentation"]
        return settings
