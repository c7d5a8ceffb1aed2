"""The champion of each task: the best encoder (`pipeline.evaluation.champion`), under MLflow's alias `champion`."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.downstream import arms_on_tasks
from assets.failures import HOOKS
from assets.pretraining import encoder_name, registered_name
from assets.step import Context, Materializations, Step, step
from pipeline import code_versions
from pipeline.evaluation.display_names import metric_label
from pipeline.evaluation.document import TextTable
from pipeline.files import digest
from pipeline.recipe import Recipe
from pipeline.recipe.arms import encoder_of
from resources.mlflow_records import Champion
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
        deps=[one.asset for one in arms_on_tasks(recipe) if one.task == task],
        description=f"The best encoder for {task}, by {metric} on its validation images. Another encoder replaces it "
        "only if it is significantly better. With several pretraining seeds it is the encoder of the first.",
        code_version=f"{code_versions.EVALUATION}-{digest(relevant, recipe.evaluation.test_resamples)[:8]}",
        group_name=task,
        kinds={"mlflow"},
    )
    def champion(context: Context, store: StoreFolder, tracking: Tracking) -> Materializations:
        from pipeline.evaluation.champion import decide_champion, save_champion

        with step(context, store, tracking, recipe, relevant) as here:
            experiment = here.store.experiment(recipe.name)
            decision = decide_champion(recipe, experiment, task)
            _register(here, recipe, task, decision)  # before saving: a run killed in between registers it again
            save_champion(recipe, experiment, task, decision)
            yield _result(here, recipe, task, decision)

    return champion


def _register(here: Step, recipe: Recipe, task: str, decision: "Decision") -> None:
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


def _result(here: Step, recipe: Recipe, task: str, decision: "Decision") -> dg.MaterializeResult[None]:
    best, metric = decision.champion, recipe.downstream.tasks[task].champion_metric
    scores = [(contender.name, f"{contender.score:.4f}") for contender in decision.contenders]
    arms = TextTable(("arm", f"{metric_label(metric)}, validation"), scores, numbers_from=1)
    return here.made(
        f"{task}_champion",
        digest(best.encoder if best else "", best.arm if best else "")[:16],
        {
            "champion": best.name if best else "none",
            "why": decision.reason,
            "has changed": decision.changed,
            "in MLflow": f"models:/{registered_name(recipe, task)}@champion",
            "arms": dg.MetadataValue.md(arms.markdown()),
        },
        metrics={f"validation.{contender.name}": contender.score for contender in decision.contenders},
    )
