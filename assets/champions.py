"""The best encoder of each task, where others find it: MLflow's alias `champion`.

Belongs here: the asset, one per task. Not here: the decision (`pipeline.evaluation.champion`), the registry.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from assets.downstream import places
from assets.failures import HOOKS
from assets.pretraining import encoder_name, registered_name
from assets.step import Step, step
from pipeline import code_versions
from pipeline.files import digest
from pipeline.markdown import cell
from pipeline.recipe import Recipe, encoder_of
from resources.records import Champion
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.evaluation.champion import Decision


def champion_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`<task>_champion` of each task."""
    return [_champion(recipe, task) for task in recipe.downstream.tasks]


def _champion(recipe: Recipe, task: str) -> dg.AssetsDefinition:
    metric = recipe.downstream.tasks[task].champion_metric
    relevant = {"metric": metric, "decided by": "validation", "fraction": max(recipe.downstream.fractions)}

    @dg.asset(
        hooks=HOOKS,
        name=f"{task}_champion",
        deps=[place.asset for place in places(recipe) if place.task == task],
        description=f"The encoder that is best for {task}, by {metric} on its validation images: it gives way only to "
        "one that is better beyond the interval of their difference. Of several pretraining seeds it is the first's.",
        code_version=f"{code_versions.EVALUATION}-{digest(relevant, recipe.evaluation.test_resamples)[:8]}",
        group_name=task,
        kinds={"mlflow"},
    )
    def champion(
        context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.evaluation.champion import decide_champion, save_champion

        with step(context, tracking, recipe, relevant) as here:
            experiment = store.open().experiment(recipe.name)
            decision = decide_champion(recipe, experiment, task)
            _tell(here, recipe, task, decision)  # first, so that a run killed in between tells it again
            save_champion(recipe, experiment, task, decision)
            yield _made(here, recipe, task, decision)

    return champion


def _tell(here: Step, recipe: Recipe, task: str, decision: "Decision") -> None:
    best = decision.champion
    if best is None:
        return
    here.run.champion(
        Champion(
            name=registered_name(recipe, task),
            encoder=registered_name(recipe, encoder_name(best.backbone, encoder_of(best.arm))),
            digest=best.encoder,
            earlier=decision.earlier,
            tags={
                "backbone": best.backbone,
                "arm": best.arm,
                f"validation.{recipe.downstream.tasks[task].champion_metric}": f"{best.score:.4f}",
            },
        )
    )


def _made(here: Step, recipe: Recipe, task: str, decision: "Decision") -> dg.MaterializeResult[None]:
    from pipeline.evaluation.tables import metric_label

    best, metric = decision.champion, recipe.downstream.tasks[task].champion_metric
    head = [f"| arm | {metric_label(metric)}, validation |", "| --- | --- |"]
    rows = [f"| {cell(contender.name)} | {contender.score:.4f} |" for contender in decision.contenders]
    return here.made(
        f"{task}_champion",
        digest(best.encoder if best else "", best.arm if best else "")[:16],
        {
            "champion": best.name if best else "none",
            "why": decision.reason,
            "has changed": decision.moved,
            "in MLflow": f"models:/{registered_name(recipe, task)}@champion",
            "arms": dg.MetadataValue.md("\n".join([*head, *rows])),
        },
        metrics={f"validation.{contender.name}": contender.score for contender in decision.contenders},
    )
