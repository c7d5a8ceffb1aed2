"""The losses of pretraining, paper section 3.2."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import grad
from torch.linalg import vector_norm
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, relu


def discriminator_loss(real_N: Tensor, inpainted_N: Tensor) -> Tensor:
    """Equation 2: L_D = −E[min(0, −1 + D(x, y))] − E[min(0, −1 − D(F(x̂), y))], of scores of shape (N,)."""
    return relu(1 - real_N).mean() + relu(1 + inpainted_N).mean()


def saturated_share(real_N: Tensor, inpainted_N: Tensor) -> Tensor:
    """The share of scores beyond the margin of equation 2 (real at least 1, inpainted at most −1): 1 if L_D is 0."""
    return ((real_N >= 1).float().mean() + (inpainted_N <= -1).float().mean()) / 2


def adversarial_loss(inpainted_N: Tensor) -> Tensor:
    """The first term of equation 3 without its weight: −E[D(F(x̂), y)], of scores of shape (N,)."""
    return -inpainted_N.mean()


def reconstruction_loss(inpainted_N1HW: Tensor, patch_N1HW: Tensor) -> Tensor:
    """The second term of equation 3 without its weight: E[(F(x̂) − x)²] over the hidden centre's z-scores."""
    return mse_loss(inpainted_N1HW, patch_N1HW)


def gradient_ratio(term: Tensor, reference: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Ratio of a term's gradient norm to that of a reference term, both with respect to `weights`.

    The terms are scalars with their factors in the loss. Finite, if large, without a gradient of the reference term: a
    training with λrec = 0 has not diverged.
    """
    of_term, of_reference = (
        vector_norm(torch.stack([vector_norm(gradient) for gradient in grad(scalar, weights, retain_graph=True)]))
        for scalar in (term, reference)
    )
    ratio: Tensor = of_term / of_reference.clamp(min=1e-6)
    return ratio


def label_loss(logits_NL: Tensor, labels_NL: Tensor, known_NL: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the labels that are known (paper section 4.3, DCM); 0 if none is."""
    each_NL = binary_cross_entropy_with_logits(logits_NL, labels_NL, reduction="none")
    return (each_NL * known_NL).sum() / known_NL.sum().clamp(min=1)
