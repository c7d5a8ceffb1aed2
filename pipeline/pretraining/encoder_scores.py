"""What an encoder's features tell about the archive's labels, and how they are spread, while it is trained."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.images.batches import AugmentationParameters, Normalization, draw_augmentation
from pipeline.methods import TrainingSettings
from pipeline.networks.encoders import Encoder
from pipeline.pretraining.curves import ALIGNMENT, EFFECTIVE_RANK, LINEAR_AUC, NEIGHBOUR_AUC, UNIFORMITY
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.pool_questions import pool_questions
from pipeline.representation.auc import mean_auc
from pipeline.representation.features import BATCH, Floats, pooled_features
from pipeline.representation.neighbours import neighbour_votes
from pipeline.representation.ridge import ridge_scores
from pipeline.representation.spread import alignment, effective_rank, uniformity
from pipeline.settings import Augmentation
from pipeline.training.device import training_device
from pipeline.training.distributed import group, sum_over_processes
from pipeline.training.loop import Metrics, Scoring
from pipeline.training.seeds import generator

MAX_TRAIN: Final = 1500
MAX_VAL: Final = 1000
"""Maximum number of images of each side."""
MAX_VIEWED: Final = 250
"""Maximum number of validation images whose two views `ALIGNMENT` compares."""


_SPREAD = (EFFECTIVE_RANK, ALIGNMENT, UNIFORMITY)


class EncoderScores:
    """Scores of an encoder in training, on the same images of `pool` each time.

    Labels are those of the archive, also if the encoder is shown others. The augmented views are the same each time.
    """

    def __init__(
        self, encoder: Encoder, pool: PretrainingSet, normalization: Normalization, augmentation: Augmentation
    ) -> None:
        self._encoder, self._pool, self._normalization = encoder, pool, normalization
        self._questions = pool_questions(pool.archive, MAX_TRAIN, MAX_VAL)
        self._viewed = self._questions.val[:: max(1, len(self._questions.val) // MAX_VIEWED)][:MAX_VIEWED]
        draws = generator(0, "two views")
        self._views = [draw_augmentation(len(self._viewed), *pool.size, augmentation, draws) for _ in range(2)]
        self.names = (*((NEIGHBOUR_AUC, LINEAR_AUC) if self._questions.names else ()), *_SPREAD)

    def __call__(self) -> Metrics:
        """The scores by `names`; nan if a feature is not finite. One of several processes computes them for all."""
        values = torch.zeros(len(self.names), dtype=torch.float64)
        if group().is_main:
            values += torch.tensor(self._scores(), dtype=torch.float64)
        return dict(zip(self.names, sum_over_processes(values.to(training_device())).tolist(), strict=True))

    def _scores(self) -> list[float]:
        asked, pool = self._questions, self._pool
        train_MD, val_ND = self._features(asked.train), self._features(asked.val)
        first, second = (self._features(self._viewed, view) for view in self._views)
        if not all(np.isfinite(features).all() for features in (train_MD, val_ND, first, second)):
            return [float("nan")] * len(self.names)
        spread = [effective_rank(val_ND), alignment(first, second), uniformity(val_ND)]
        if not asked.names:
            return spread
        votes_NT = neighbour_votes(train_MD, asked.train_MT, val_ND)
        linear_NT = ridge_scores(train_MD, asked.train_MT, pool.patients_N[asked.train].numpy(), val_ND)
        return [mean_auc(asked.val_NT, votes_NT), mean_auc(asked.val_NT, linear_NT), *spread]

    def _features(self, positions: Tensor, view: AugmentationParameters | None = None) -> Floats:
        batches = self._pool.images.batches(positions.split(BATCH))
        if view is not None:
            views = view.to(self._pool.images.device).batches(BATCH)
            batches = (part.apply(images_NHW) for part, images_NHW in zip(views, batches, strict=True))
        return pooled_features(self._encoder, batches, self._normalization)


def scoring_of(
    settings: TrainingSettings, encoder: Encoder, pool: PretrainingSet, normalization: Normalization
) -> Scoring:
    """When a training of `encoder` on `pool` is scored, and by what.

    Raises `UserError` if the labels are to select the epoch and none can be scored.
    """
    scores = EncoderScores(encoder, pool, normalization, settings.augmentation)
    if settings.selected_by_labels and LINEAR_AUC not in scores.names:
        raise UserError(
            f"pretraining.select_by is {settings.select_by}, but no label is both present and absent among the "
            "training images and among the validation images of the pool: choose `loss`."
        )
    return Scoring(settings.score_every, scores, LINEAR_AUC if settings.selected_by_labels else None)


def scored_images(pool: PretrainingSet) -> int:
    """The number of images that one scoring passes through the encoder."""
    train, val = min(len(pool.train), MAX_TRAIN), min(len(pool.val), MAX_VAL)
    return train + val + 2 * min(val, MAX_VIEWED)
