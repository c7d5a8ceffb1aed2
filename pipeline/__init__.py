"""The pipeline from DICOM files to the results table, without Dagster and MLflow."""

import os

# Idle OpenMP threads release their core soon. A fine-tuning step on 2 cores takes 0.2 s with or without this; beside
# another training it takes 0.7 s with it and more than 7 s without. It must be set before torch is loaded, hence here:
# every import of the pipeline runs this module first.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
