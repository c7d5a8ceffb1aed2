"""Method ce: a context encoder, without labels (paper sections 3.1, 3.2 and 4.2)."""

from operator import not_
from typing import Annotated, Any

from pydantic import Field

from pipeline.methods.method import Method, TrainingSettings, register
from pipeline.settings import Backbone, Rate, Weight, is_none

DECODER = "decoder.safetensors"
INPAINTING = "inpainting.json"
"""The inpainting error on validation images."""


class ContextEncoderSettings(TrainingSettings):
    """Settings of the adversarial training (equations 2 and 3)."""

    discriminator_learning_rate: Rate = 1e-5
    discriminator_batch_norm: bool = True
    discriminator_spectral_norm: Annotated[bool, Field(exclude_if=not_)] = False
    """In place of batch norm."""
    lambda_adv: Weight = 0.001
    """With `adversarial_share` the first value, which the first step does not use any more; 0 stays 0."""
    lambda_rec: Weight = 0.999
    adversarial_share: Annotated[Rate | None, Field(exclude_if=is_none)] = None
    """Ratio of the two terms' gradient norms at the encoder's weights that λadv is set to keep; None: λadv is fixed."""

    def decisive(self, backbone: Backbone) -> dict[str, Any]:
        """All settings that have an effect; the discriminator's batch norm only if it is off and nothing replaces it.

        Before there was a choice, batch norm was not recorded.
        """
        without_effect = {
            "discriminator_batch_norm": self.discriminator_batch_norm or self.discriminator_spectral_norm,
            "adversarial_share": self.lambda_adv == 0,
            "lambda_adv": self.lambda_adv > 0 and self.adversarial_share is not None,
        }
        settings = super().decisive(backbone)
        return {name: value for name, value in settings.items() if not without_effect.get(name)}


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
            "train_adversarial_weight": "λadv, training",
            "train_adversarial_share_at_the_patch": "adversarial gradient / reconstruction's, patches",
        },
    )
)
