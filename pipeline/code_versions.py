"""Code versions of the stages, part of Dagster's code versions and of fingerprints.

Raise a stage's number in the commit that changes its results.
"""

from typing import Final, Literal

INDEX = "8"
LABELS = "6"
SUGGESTIONS = "1"
"""Of the worklist, beside LABELS; nothing is computed from it."""
COHORT = "5"
AUDIT = "1"
IMAGES = "6"
TASKS = "7"
PRETRAINING = "3"
FINETUNING = "6"
UNET: Final[Literal[1, 2]] = 2
"""Of the segmentation network, stored in its models; models of other tasks do not depend on it."""
EVALUATION = "5"
FROZEN = "1"
EMBEDDINGS = "1"
PREDICTION = "3"
