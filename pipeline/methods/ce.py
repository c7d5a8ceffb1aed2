"""Method ce: a context encoder, without labels (paper sections 3.1, 3.2 and 4.2)."""

from typing import Any

from pipeline.methods.method import Method, TrainingSettings, register
from pipeline.settings import Backbone, Rate, Weight

DECODER = "decoder.safetensors"
INPAINTING = "inpainting.json"
"""The inpainting error on validation images."""


class ContextEncoderSettings(TrainingSettings):
    """Settings of the adversarial training (equations 2 and 3)."""

    discriminator_learning_rate: Rate = 1e-5
    discriminator_batch_norm: bool = True
    lambda_adv: Weight = 0.001
    lambda_rec: Weight = 0.999

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """All settings; the discriminator's batch norm only if it is off, as before there was a choice."""
        unused = {"discriminator_batch_norm"} if self.discriminator_batch_norm else None
        return self.model_dump(mode="json", exclude=unused)


CE = register(
    Method(
        name="ce",
        label="CE",
        description="context encoder, without metadata",
        card="Trained to inpaint the hidden centre of ultrasound images (context encoder), without labels.",
        trainer="pipeline.pretraining.inpainting:ContextEncoderRun",
        settings=ContextEncoderSettings,
        inpaints=True,
        files=(DECODER, INPAINTING),
        curve_titles={
            "train_loss": "L_F, training",
            "val_loss": "L_F, validation",
            "val_mse": "squared error (z-scores²), validation",
            "val_diversity": "diversity of the inpainted, validation",
            "val_score_real": "D of the real, validation",
            "val_score_inpainted": "D of the inpainted, validation",
            "train_discriminator_loss": "L_D, training",
            "train_score_real": "D of the real, training",
            "train_score_inpainted": "D of the inpainted, training",
            "train_saturation": "D beyond the margin, training",
            "train_adversarial_share": "adversarial gradient / reconstruction's, encoder's weights",
            "train_adversarial_share_at_the_patch": "adversarial gradient / reconstruction's, patches",
        },
    )
)
