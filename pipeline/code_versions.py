"""The version of each stage's code, part of what Dagster and the fingerprints compare.

Belongs here: one number per stage, raised in the commit that changes what the stage computes. Not here: imports.
"""

INDEX = "1"
LABELS = "1"
COHORT = "1"
IMAGES = "1"
TASKS = "1"
PRETRAINING = "1"
FINETUNING = "1"
EVALUATION = "1"
