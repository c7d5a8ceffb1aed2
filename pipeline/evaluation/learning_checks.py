"""Whether anything was learnt: arms compared with constant predictors, inpainting with the mean patch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.evaluation.report import Report

INPAINTING_CHECK = "inpainting_beats_the_mean_patch"


@dataclass(frozen=True)
class LearningCheck:
    """The result of one check and the scores that it compared."""

    name: str
    passed: bool
    scores: str


def task_check(task: str) -> str:
    """The name of the check of `task`."""
    return f"{task}_beats_a_constant"


def learning_checks(report: "Report", tasks: Iterable[str]) -> list[LearningCheck]:
    """The inpainting check, and for each task whether its best arm scores above the best constant predictor."""
    return [_inpainting_check(report), *(_task_check(report, task) for task in tasks)]


def _inpainting_check(report: "Report") -> LearningCheck:
    errors = [
        f"{row.backbone} {row.encoder}, seed {row.seed} {row.validation_mse:.3f}, the mean patch "
        f"{row.mean_patch_mse:.3f}"
        for row in report.inpaintings
    ]
    scores = f"squared error: {'; '.join(errors)}" if errors else "no inpainting"
    return LearningCheck(INPAINTING_CHECK, all(row.beats_mean_patch for row in report.inpaintings), scores)


def _task_check(report: "Report", task: str) -> LearningCheck:
    best = max((r.mean for r in report.results if r.task == task and r.mean is not None), default=None)
    constant = next((constant.score for constant in report.constants if constant.task == task), None)
    passed = best is not None and constant is not None and best > constant
    scores = f"best arm {_score(best)}, best constant predictor {_score(constant)}"
    return LearningCheck(task_check(task), passed, scores)


def _score(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
