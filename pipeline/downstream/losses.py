"""The losses of fine-tuning (paper Table A2): weighted binary cross-entropy and soft Dice."""

import torch
from torch import Tensor
from torch.nn import functional

_LARGEST_WEIGHT = 20.0  # of a positive; its inverse is the smallest
_SMOOTHING = 1.0  # pixels; makes the soft Dice of an empty mask defined


def positive_weights(codes_NT: Tensor) -> Tensor:
    """The weight of a positive at each threshold of the training split's ordinal codes, shape (T,).

    It is negatives over positives, so that both sides have the same total weight. A side without images counts as one
    image, and weights are clamped to 1/20 to 20, so that every threshold keeps a finite loss.
    """
    positives = codes_NT.sum(dim=0)
    negatives = len(codes_NT) - positives
    ratio = negatives.clamp(min=1) / positives.clamp(min=1)
    return ratio.clamp(1 / _LARGEST_WEIGHT, _LARGEST_WEIGHT)


def weighted_bce(logits_NT: Tensor, codes_NT: Tensor, positive_weights_T: Tensor) -> Tensor:
    """Binary cross-entropy with weighted positives at each threshold; the mean over images and thresholds."""
    return functional.binary_cross_entropy_with_logits(logits_NT, codes_NT, pos_weight=positive_weights_T)


def class_probabilities(logits_NCHW: Tensor) -> Tensor:
    """Probabilities of background and foreground classes, shape (N, C + 1, H, W), from C foreground logits.

    Softmax with the background's logit fixed at 0; for one foreground class this is the sigmoid.
    """
    background = torch.zeros_like(logits_NCHW[:, :1])
    return torch.cat([background, logits_NCHW], dim=1).softmax(dim=1)


def soft_dice_loss(logits_NCHW: Tensor, masks_NHW: Tensor) -> Tensor:
    """1 - soft Dice, averaged over images and foreground classes; `masks_NHW` holds class values 0 to C.

    Per image and class: (2 Σ p t + s) / (Σ p² + Σ t² + s) with s = 1 pixel (squares as Milletari et al. 2016). For an
    empty true mask this is s / (Σ p² + s): 1 if nothing is predicted, falling with every predicted pixel. The loss lies
    in [0, 1].

    Without the squares a class that is at first predicted everywhere stays so for long, since the gradient of a wrong
    pixel is small and fades with its confidence (72 synthetic images of three classes, 90 steps: test Dice 0.58
    without, 0.90 with).
    """
    foreground_NCHW = class_probabilities(logits_NCHW)[:, 1:]
    values_C = torch.arange(1, foreground_NCHW.shape[1] + 1, device=masks_NHW.device)
    truth_NCHW = masks_NHW[:, None] == values_C[:, None, None]
    overlap_NC = (foreground_NCHW * truth_NCHW).sum(dim=(2, 3))
    pixels_NC = foreground_NCHW.square().sum(dim=(2, 3)) + truth_NCHW.sum(dim=(2, 3))
    return 1 - ((2 * overlap_NC + _SMOOTHING) / (pixels_NC + _SMOOTHING)).mean()
