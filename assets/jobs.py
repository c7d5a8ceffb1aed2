"""What can be run: the six jobs.

Belongs here: which assets a job materializes, and how. Not here: when (schedules and sensors).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.catalog import COHORT, REVIEW

IN_PROCESS = {"execution": {"config": {"in_process": {}}}, "loggers": {"console": {}}}
"""The default; run config `execution: {config: {multiprocess: {max_concurrent: 2}}}` takes a process per step."""

INGEST = dg.AssetSelection.groups("archive", "labels", "images", REVIEW, COHORT)
PRETRAIN = dg.AssetSelection.groups("pretraining")
REPORT = dg.AssetSelection.groups("reports")
PREDICTION = dg.AssetSelection.groups("prediction")
DEMO = dg.AssetSelection.all() - PREDICTION  # which asks what to predict

INGEST_JOB = "ingest"
PRETRAIN_JOB = "pretrain"
READING_JOBS = (INGEST_JOB, "demo")
"""Which read the archive."""

JOBS = {
    INGEST_JOB: (
        INGEST,
        "From the archive's DICOM files to the image cache and the pretraining pool. Then look at quarantine (what was "
        "left out, and why) and at unmapped_descriptions (what has yet to be mapped).",
    ),
    PRETRAIN_JOB: (
        PRETRAIN,
        "Every encoder of the recipe, from the pretraining pool. What is trained is not trained again.",
    ),
    "finetune": (DEMO - INGEST - PRETRAIN - REPORT, "Every arm on every task, and its predictions."),
    "report": (REPORT, "Tables and figures, from predictions and encoders."),
    "predict": (PREDICTION, "A fine-tuned model on new DICOM files, which its run config names."),
    "demo": (DEMO, "All of it, from DICOM files to the results table."),
}


def jobs(places: Mapping[str, str]) -> list[Any]:
    """The jobs, each in-process unless its run config says otherwise; their pages show `places`, which no run sets."""
    return [
        dg.define_asset_job(name, selection=selection, description=says, config=IN_PROCESS, metadata=dict(places))
        for name, (selection, says) in JOBS.items()
    ]
