"""Pretrained encoders, one asset per backbone and method.

Belongs here: the factory of the group `pretraining`. Not here: training (`pipeline.pretraining`).
"""

from collections.abc import Iterator

import dagster as dg

from assets.failures import HOOKS
from assets.step import FIRST, Step, step
from pipeline import code_versions
from pipeline.files import digest
from pipeline.recipe import Backbone, Method, Recipe
from pipeline.store import Store
from pipeline.training.outcome import Outcome
from resources.compute import POOL, Compute
from resources.store import StoreFolder
from resources.tracking import Tracking

GROUP = "pretraining"

DESCRIPTIONS: dict[Method, str] = {
    "baseline": "random initialisation, no pretraining",
    "imagenet": "torchvision's ImageNet weights",
    "dcm": "trained to predict the weak labels",
    "ce": "context encoder, without metadata",
    "ce_dcm": "context encoder whose discriminator sees the weak labels",
}


def encoder_name(backbone: Backbone, method: Method) -> str:
    """The asset's name; its last part alone tells two nodes of the graph apart."""
    return f"{backbone}_{method}_encoder"


def encoder_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`preflight`, and one encoder per backbone and method of the recipe."""
    return [_preflight(recipe), *(_encoder(recipe, *which) for which in _which(recipe))]


def _which(recipe: Recipe) -> list[tuple[Backbone, Method]]:
    settings = recipe.pretraining
    return [(backbone, method) for backbone in settings.backbones for method in settings.methods]


def _preflight(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        deps=["pretraining_pool"],
        description="What the recipe is going to take: hours, memory and disk, from a few steps of each encoder and of "
        "each task's models, that are still to be trained. Fails where the disk cannot hold the encoders.",
        code_version=code_versions.PRETRAINING,
        group_name=GROUP,
        kinds={"torch"},
        op_tags=FIRST,
    )
    def preflight(
        context: dg.AssetExecutionContext, store: StoreFolder, compute: Compute, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.downstream.preflight import preflight as of_models
        from pipeline.pretraining.pool import load_pool
        from pipeline.pretraining.preflight import preflight as of_encoders
        from pipeline.training.trial import between, together

        with step(context, tracking, recipe) as here:
            place = store.open()
            experiment = place.experiment(recipe.name)
            encoders = [(*which, experiment.encoder(*which)) for which in _which(recipe)]
            with compute.training(here.say):
                pool = load_pool(place, recipe)
                to_train = of_encoders(encoders, pool, recipe.pretraining, here.say)
                to_tune = of_models(recipe, place, here.say)
            hours = together([*(forecast.hours for forecast in to_train), *(forecast.hours for forecast in to_tune)])
            here.say(f"Preflight: about {between(hours)} for encoders and models, one after the other.")
            lines = [*map(str, to_train), *map(str, to_tune)]
            yield here.made(
                "preflight",
                digest(lines)[:16],
                {
                    "forecast": dg.MetadataValue.md(
                        "\n".join(f"- {line}" for line in lines) or "Nothing is left to train."
                    ),
                    "hours at least": hours[0],
                    "hours at most": hours[1],
                },
                metrics={"hours_at_least": hours[0], "hours_at_most": hours[1]},
            )

    return preflight


def _encoder(recipe: Recipe, backbone: Backbone, method: Method) -> dg.AssetsDefinition:
    asset = encoder_name(backbone, method)
    version = f"{code_versions.PRETRAINING}-{digest(recipe.pretraining.model_dump())[:8]}"

    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        name=asset,
        deps=["pretraining_pool"],
        description=f"{backbone} encoder: {DESCRIPTIONS[method]}.",
        code_version=version,
        group_name=GROUP,
        kinds={"torch"},
        check_specs=[outcome_check(asset)],
    )
    def encoder(
        context: dg.AssetExecutionContext, store: StoreFolder, compute: Compute, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.pretraining.pool import load_pool
        from pipeline.pretraining.pretrain import pretrain

        params = {"backbone": backbone, "method": method, **recipe.pretraining.model_dump(exclude={"backbones"})}
        with step(context, tracking, recipe, params) as here:
            place = store.open()
            folder = place.experiment(recipe.name).encoder(backbone, method)
            with compute.training(here.say):
                pool = load_pool(place, recipe)
                here.run.params({"image_digest": pool.image_digest, "label_digest": pool.label_digest})
                outcome = pretrain(
                    backbone,
                    method,
                    pool,
                    recipe.pretraining,
                    folder,
                    here.say,
                    lambda epoch, values: here.run.metrics(values, epoch),
                )
            yield _made(here, asset, outcome, place, recipe, backbone, method)

    return encoder


def _made(
    here: Step, asset: str, outcome: Outcome, store: Store, recipe: Recipe, backbone: Backbone, method: Method
) -> dg.MaterializeResult[None]:
    folder = store.experiment(recipe.name).encoder(backbone, method)
    card = folder / "model_card.md"
    shown = {"model card": dg.MetadataValue.md(card.read_text(encoding="utf-8"))} if card.is_file() else {}
    names = ("model_card.md", "preprocessing.json", "curves.csv", "inpainting.json", "metadata.json", "outcome.json")
    return here.made(
        asset,
        outcome.fingerprint[:16],
        {"outcome": outcome.status, "reason": outcome.reason, "folder": str(folder.relative_to(store.root)), **shown},
        files=[folder / name for name in (*names, "encoder.safetensors")],
        checks=[outcome_result(outcome)],
    )


def outcome_check(asset: str) -> dg.AssetCheckSpec:
    """A check that warns where an arm is unavailable or diverged; what follows carries the outcome on."""
    return dg.AssetCheckSpec("ran", asset=asset, description="The arm ran; otherwise its outcome says why not.")


def outcome_result(outcome: Outcome) -> dg.AssetCheckResult:
    """The result of `outcome_check`."""
    return dg.AssetCheckResult(
        check_name="ran",
        passed=outcome.status == "ran",
        severity=dg.AssetCheckSeverity.WARN,
        description=outcome.reason,
        metadata={"outcome": outcome.status},
    )
