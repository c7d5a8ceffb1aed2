"""The version of each stage's code, part of what Dagster and the fingerprints compare.

Belongs here: one number per stage, raised in the commit that changes what the stage computes. Not here: imports.
"""

INDEX = "5"
LABELS = "3"
COHORT = "4"
IMAGES = "4"
TASKS = "6"
PRETRAINING = "2"
FINETUNING = "6"
EVALUATION = "5"
PREDICTION = "3"
