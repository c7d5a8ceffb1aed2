"""How the features of images are spread: whether an encoder maps all images to one vector, line or plane."""

import numpy as np
from numpy.typing import NDArray

from pipeline.representation.features import Floats, unit


def effective_rank(features_ND: Floats) -> float:
    """The effective number of dimensions of the features, between 1 and min(N, D); 0 if all features are 0.

    exp of the entropy of the singular values divided by their sum (Roy and Vetterli 2007, The effective rank). The
    features are not centred: if all images have the same vector, the rank is 1.
    """
    x = features_ND.astype(np.float64)
    gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    if not singular.any():
        return 0.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def alignment(first_ND: Floats, second_ND: Floats) -> float:
    """The mean squared distance of the unit features of two views of one image, 0 to 4; 0 if views do not matter.

    Wang and Isola 2020 (Understanding contrastive representation learning), with the exponent 2.
    """
    return float(np.square(_unit(first_ND) - _unit(second_ND)).sum(1).mean())


def uniformity(features_ND: Floats) -> float:
    """Log of the mean of exp(−2 d²) over the pairs of images at distance d of their unit features, at most 0.

    Wang and Isola 2020. 0 if all features point one way, as those of a single image do; lower is more evenly spread.
    """
    x = _unit(features_ND)
    first, second = np.triu_indices(len(x), k=1)
    if not len(first):
        return 0.0
    squared = 2 - 2 * (x @ x.T)[first, second]
    return float(np.log(np.exp(-2 * np.maximum(squared, 0)).mean()))


def _unit(features_ND: Floats) -> NDArray[np.float64]:
    return unit(features_ND.astype(np.float64))
