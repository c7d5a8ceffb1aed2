"""The version of each stage's code, part of what Dagster and the fingerprints compare.

Belongs here: one number per stage, raised in the commit that changes what the stage computes.
"""

from typing import Final, Literal

INDEX = "7"
LABELS = "4"
COHORT = "5"
IMAGES = "6"
TASKS = "7"
PRETRAINING = "3"
FINETUNING = "6"
UNET: Final[Literal[1, 2]] = 2
"""Of a segmentation's network, part of fine-tuning: the models of other tasks do not depend on it. Models hold it."""
EVALUATION = "5"
PREDICTION = "3"
