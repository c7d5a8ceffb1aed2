"""Features as shorter vectors, and vectors as positions on a map."""

from typing import Final

import numpy as np
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from pipeline.representation.features import Floats

DIMENSIONS: Final = 256
"""Maximum length of a vector."""
PERPLEXITY: Final = 30
"""About as many neighbours of an image count on a map; fewer of few images."""
_COMPONENTS = 50  # that t-SNE reads, as van der Maaten and Hinton 2008 do
_FEWEST = 4  # images of a map


def principal_vectors(features_ND: Floats) -> Floats:
    """The features on their first principal directions: (N, K), K at most `DIMENSIONS`, N and D.

    They are not centred, so that products of two vectors, and thus cosine similarities, are nearly those of the
    features; exactly if K is D.
    """
    count = min(DIMENSIONS, *features_ND.shape)
    if count == features_ND.shape[1]:
        return features_ND
    with threadpool_limits(1):
        vectors: Floats = TruncatedSVD(count, random_state=0).fit_transform(features_ND).astype(np.float32)
    return vectors


def map_of(vectors_NK: Floats) -> Floats:
    """Positions of images on a map by t-SNE (van der Maaten and Hinton 2008), initialized by PCA: (N, 2).

    The same vectors give the same map. Zeros if all vectors are equal, or of fewer than four images. One thread works:
    several wait for each other more than they work, by far if the machine is busy.
    """
    count = len(vectors_NK)
    if count < _FEWEST or not np.ptp(vectors_NK, axis=0).any():
        return np.zeros((count, 2), np.float32)
    with threadpool_limits(1):
        reduced = PCA(min(_COMPONENTS, *vectors_NK.shape), random_state=0).fit_transform(vectors_NK)
        perplexity = min(PERPLEXITY, (count - 1) / 3)
        tsne = TSNE(init="pca", perplexity=perplexity, random_state=0, n_jobs=1)
        positions: Floats = tsne.fit_transform(reduced).astype(np.float32)
    return positions
