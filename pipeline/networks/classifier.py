"""The ordinal classifier: an encoder with the paper's classification head.

`pipeline.downstream.ordinal` decodes its scores to classes.
"""

from torch import Tensor, nn

from pipeline.networks.encoders import Encoder

_CHANNELS = 256  # of the 1×1 convolution; not specified in the paper


class Classifier(nn.Module):
    """Encoder, 1×1 convolution, dropout, global average pooling, fully connected (paper section 4.4.1).

    The sigmoid of a logit is the probability that the class is above that threshold.
    """

    def __init__(self, encoder: Encoder, classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Conv2d(encoder.channels[-1], _CHANNELS, kernel_size=1),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(_CHANNELS, classes - 1),
        )

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """One logit per threshold, shape (N, classes - 1), of z-scored images; H and W multiples of 32."""
        logits: Tensor = self.head(self.encoder(x_N1HW))
        return logits
