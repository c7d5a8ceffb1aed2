"""The work itself, from DICOM files to the results table; knows neither Dagster nor MLflow."""

import os

# Waiting OpenMP threads give up their core soon. A fine-tuning step on 2 cores takes 0.2 s with this or without it;
# beside another training it takes 0.7 s with it, more than 7 s without it. It must be set before torch is loaded, which
# is why it stands where every way into the project comes by.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
