"""The eight jobs, or eight for each recipe: which assets each materializes, and how (when: `assets.automation`)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.catalog import ARCHIVE, COHORT, DOUBTFUL, EVALUATION, REVIEW, TASKS, group_of, key_of
from pipeline.recipe import Recipe

IN_PROCESS = {"execution": {"config": {"in_process": {}}}, "loggers": {"console": {}}}
"""The default; run config `execution: {config: {multiprocess: {max_concurrent: 2}}}` takes a process per step."""

INGEST_JOB, PRETRAIN_JOB, DEMO_JOB = "ingest", "pretrain", "demo"

JOBS = {
    INGEST_JOB: "From the archive's DICOM files to the image cache and the pretraining pool. Then look at quarantine "
    "(what was left out, and why) and at unmapped_descriptions (what has yet to be mapped).",
    PRETRAIN_JOB: "Every encoder of the recipe, from the pretraining pool. What is trained is not trained again.",
    "evaluate": "Scores of every frozen encoder and of trivial controls, on the tasks and on the archive's own labels, "
    "without fine-tuning. What is scored is not scored again.",
    "finetune": "Every arm on every task, and its predictions.",
    "report": "Tables and figures, from predictions and encoders.",
    "predict": "A fine-tuned model on new DICOM files, which its run config names.",
    "audit": "A worklist of the studies whose pixels contradict their study groups, after `ingest`.",
    DEMO_JOB: "All of it, from DICOM files to the results table.",
}


def job_name(job: str, recipe: Recipe, alone: bool) -> str:
    """The name of a job: the recipe stands before it, unless it is `alone` or the job is `ingest`, one for all."""
    return job if alone or job == INGEST_JOB else f"{recipe.name}_{job}"


def reads_archive(job: str) -> bool:
    """Whether the job of that name reads the archive."""
    return job == INGEST_JOB or re.search(rf"(^|_){DEMO_JOB}$", job) is not None


def jobs(shown: Mapping[str, str], recipes: Sequence[Recipe]) -> list[Any]:
    """The jobs, each in-process unless its run config says otherwise; their pages show `shown`, which no run sets.

    Of several recipes each has its own, but for `ingest`.
    """
    alone = len(recipes) == 1
    selections: dict[str, dg.AssetSelection] = {}
    says: dict[str, str] = {}
    for recipe in recipes:
        for job, selection in _selections(recipe, alone).items():
            name = job_name(job, recipe, alone)
            selections[name] = selections[name] | selection if name in selections else selection
            says[name] = JOBS[job]
    defined = [
        dg.define_asset_job(name, selection=selection, description=says[name], config=IN_PROCESS, metadata=dict(shown))
        for name, selection in selections.items()
    ]
    return defined if alone else [*defined, *(_refused(job, recipes) for job in JOBS if job != INGEST_JOB)]


def _selections(recipe: Recipe, alone: bool) -> dict[str, dg.AssetSelection]:
    """What each job materializes of the recipe."""

    def groups(*names: str) -> dg.AssetSelection:
        return dg.AssetSelection.groups(*(group_of(recipe, name, alone) for name in names))

    audit = dg.AssetSelection.assets(key_of(recipe, DOUBTFUL))
    ingest = groups(ARCHIVE, "labels", "images", REVIEW, COHORT) - audit  # which takes minutes for a large archive
    pretrain, report, prediction = groups("pretraining"), groups("reports"), groups("prediction")
    graph = groups(ARCHIVE) | dg.AssetSelection.key_prefixes(recipe.name)
    everything = graph - prediction - audit  # prediction asks what to predict
    scores = groups(EVALUATION)
    finetune = everything - ingest - pretrain - scores - report
    evaluate = scores | groups(TASKS)  # so that encoders can be scored before anything is fine-tuned
    selections = (ingest, pretrain, evaluate, finetune, report, prediction, audit, everything)
    return dict(zip(JOBS, selections, strict=True))


def _refused(job: str, recipes: Sequence[Recipe]) -> dg.JobDefinition:
    """A job that refuses to choose among recipes."""
    names = " or ".join(job_name(job, recipe, alone=False) for recipe in recipes)
    sentence = f"SONOTAG_RECIPE names several recipes: run {names} instead of {job}."

    @dg.op(name=f"choose_recipe_to_{job}")
    def choose() -> None:
        raise dg.Failure(sentence, allow_retries=False)

    @dg.job(name=job, description=sentence, config=IN_PROCESS)
    def refused() -> None:
        choose()

    return refused
