"""The version of each stage's code, part of what Dagster and the fingerprints compare.

Belongs here: one number per stage, raised in the commit that changes what the stage computes. Not here: imports.
"""

INDEX = "2"
LABELS = "1"
COHORT = "2"
IMAGES = "2"
TASKS = "2"
PRETRAINING = "1"
FINETUNING = "1"
EVALUATION = "1"
