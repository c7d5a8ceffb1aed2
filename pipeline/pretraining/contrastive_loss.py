"""The loss of the contrastive methods: which views are alike, which are compared, and how alike embeddings are.

M = 2 N views are in the order of `pipeline.pretraining.two_views.ViewBatch`: view i and view i + N are a pair.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def contrastive_loss(embeddings_MD: Tensor, weights_MM: Tensor, ignored_MM: Tensor, temperature: float) -> Tensor:
    """The mean over views i of -Σ_p w(i, p) log(exp s(i, p) / Σ_a exp s(i, a)) / Σ_p w(i, p), shape ().

    s is the cosine similarity of two embeddings over `temperature`; p runs over the views with a weight above 0, a over
    all views but those ignored. Each view needs a weight in `weights_MM`, which has none where `ignored_MM`, and both
    are symmetric. This is NT-Xent (Chen et al. 2020) if the pair alone has a weight, and L_out of supervised contrast
    (Khosla et al. 2020, equation 2) if all weights are 0 or 1. Computed in float32 at least.
    """
    unit_MD = normalize(embeddings_MD.to(torch.promote_types(embeddings_MD.dtype, torch.float32)), dim=1)
    similarity_MM = unit_MD @ unit_MD.T / temperature
    share_MM = weights_MM / weights_MM.sum(dim=1, keepdim=True)
    all_M = similarity_MM.masked_fill(ignored_MM, -torch.inf).logsumexp(dim=1)
    return (all_M - (share_MM * similarity_MM).sum(dim=1)).mean()


def pair_weights(count: int, device: torch.device) -> Tensor:
    """Weight 1 for the two views of a pair of `count` images, 0 for all others, shape (M, M)."""
    return torch.eye(2 * count, device=device).roll(count, dims=0)


def label_weights(labels_NL: Tensor, known_NL: Tensor) -> Tensor:
    """Weight 1 for a pair, and for views of other images their `label_overlap`, shape (M, M)."""
    pairs_MM = pair_weights(len(labels_NL), labels_NL.device)
    overlap_NN = label_overlap(labels_NL, known_NL).fill_diagonal_(0)
    return pairs_MM + overlap_NN.tile(2, 2)


def label_overlap(labels_NL: Tensor, known_NL: Tensor) -> Tensor:
    """The Jaccard overlap of the labels of every two images, from 0 to 1, shape (N, N).

    The number of labels that both have, over the number of labels that at least one has, both among the labels known
    for both. It is 0 if there are none. `labels_NL` are 0 or 1, and 0 if unknown; `known_NL` is bool.
    """
    has_NL, known_NL = labels_NL.float(), known_NL.float()
    both_NN = has_NL @ has_NL.T
    first_NN = has_NL @ known_NL.T
    either_NN = first_NN + first_NN.T - both_NN
    return both_NN / either_NN.clamp(min=1)


def ignored_views(weights_MM: Tensor, patients_N: Tensor | None = None) -> Tensor:
    """Each view itself and, if patients are given, views of its patient without a weight, bool, shape (M, M)."""
    itself_MM = torch.eye(len(weights_MM), dtype=torch.bool, device=weights_MM.device)
    if patients_N is None:
        return itself_MM
    same_NN = patients_N[:, None] == patients_N
    return itself_MM | (same_NN.tile(2, 2) & (weights_MM == 0))
