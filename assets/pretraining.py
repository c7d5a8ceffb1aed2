"""Pretrained encoders, one asset per backbone and method.

Belongs here: the factory of the group `pretraining`. Not here: training (`pipeline.pretraining`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.failures import HOOKS
from assets.labels import MappingVersion
from assets.step import FIRST, Step, named_link, step
from pipeline import code_versions
from pipeline.files import digest, read_json
from pipeline.recipe import Backbone, Method, Recipe
from pipeline.store import Store
from pipeline.training.outcome import Outcome
from resources.compute import POOL, Compute
from resources.records import Input
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.pretraining.dataset import PretrainingSet

GROUP = "pretraining"
LEARNS_LABELS: tuple[Method, ...] = ("dcm", "ce_dcm")
"""Methods whose encoder a new mapping makes stale."""

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


def encoder_assets(recipe: Recipe, mapping: MappingVersion) -> list[dg.AssetsDefinition]:
    """`preflight`, and one encoder per backbone and method of the recipe."""
    return [_preflight(recipe), *(_encoder(recipe, *which, mapping) for which in _which(recipe))]


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
                    "all together": between(hours),
                    "forecast": dg.MetadataValue.md(
                        "\n".join(f"- {line}" for line in lines) or "Nothing is left to train."
                    ),
                    "hours at least": hours[0],
                    "hours at most": hours[1],
                },
                metrics={"hours_at_least": hours[0], "hours_at_most": hours[1]},
            )

    return preflight


def _encoder(recipe: Recipe, backbone: Backbone, method: Method, mapping: MappingVersion) -> dg.AssetsDefinition:
    asset = encoder_name(backbone, method)
    tags = mapping.meaning if method in LEARNS_LABELS else mapping.membership
    settings = digest(recipe.pretraining.model_dump(), recipe.images.model_dump())[:8]
    version = f"{code_versions.PRETRAINING}-{settings}-{tags}"

    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        name=asset,
        deps=["pretraining_pool", *(["pool_labels"] if method in LEARNS_LABELS else [])],
        description=f"{backbone} encoder: {DESCRIPTIONS[method]}.",
        code_version=version,
        group_name=GROUP,
        kinds={"torch"},
        check_specs=[outcome_check(asset)],
    )
    def encoder(
        context: dg.AssetExecutionContext, store: StoreFolder, compute: Compute, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.pretraining.encoder_folder import encoder_digest
        from pipeline.pretraining.pool import load_pool
        from pipeline.pretraining.pretrain import pretrain

        params = {"backbone": backbone, "method": method, **recipe.pretraining.model_dump(exclude={"backbones"})}
        with step(context, tracking, recipe, params) as here:
            place = store.open()
            folder = place.experiment(recipe.name).encoder(backbone, method)
            with compute.training(here.say):
                pool = load_pool(place, recipe)
                here.run.params({"image_digest": pool.image_digest, "label_digest": pool.label_digest})
                for data in _inputs(method, pool, recipe):
                    here.run.input(data)
                outcome = pretrain(
                    backbone,
                    method,
                    pool,
                    recipe.pretraining,
                    folder,
                    here.say,
                    lambda epoch, values: here.run.metrics(values, epoch),
                )
            if outcome.status == "ran":
                here.run.encoder(registered_name(recipe, asset), encoder_digest(folder), folder)
            yield _made(here, asset, outcome, place, recipe, backbone, method)

    return encoder


def registered_name(recipe: Recipe, asset: str) -> str:
    """What the encoder or the task's champion is called in MLflow's registry."""
    return f"{recipe.name}.{asset}"


def _inputs(method: Method, pool: "PretrainingSet", recipe: Recipe) -> list[Input]:
    """The data that the method is shown: images, and of the methods that see labels those."""
    from pipeline.pretraining.encoder_folder import count_labels
    from pipeline.pretraining.pretrain import LABELLED
    from pipeline.tables import pretraining_pool_table

    place = f"tables/{pretraining_pool_table(recipe.labels.names).name}.parquet"
    size = {"images.train": len(pool.train), "images.val": len(pool.val)}
    images = Input(name="pretraining images", digest=pool.image_digest, place=place, use="training", size=size)
    if method not in LABELLED:
        return [images]
    size = {label.name: label.carried for label in count_labels(pool)}
    return [images, Input(name="weak labels", digest=pool.label_digest, place=place, use="training", size=size)]


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
        {
            "outcome": f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status,
            "folder in the store": str(folder.relative_to(store.root)),
            **(_in_registry(here.run.url, registered_name(recipe, asset)) if outcome.status == "ran" else {}),
            **shown,
        },
        metrics=_label_metrics(folder / "metadata.json"),
        files=[folder / name for name in (*names, "encoder.safetensors")],
        checks=[outcome_result(outcome)],
    )


def _in_registry(run: str | None, name: str) -> dict[str, dg.MarkdownMetadataValue]:
    """Where MLflow's registry shows the encoder; nothing where MLflow could not be reached."""
    return {"MLflow registry": named_link(f"models:/{name}", f"{run.split('/#/')[0]}/#/models/{name}")} if run else {}


def _label_metrics(report: Path) -> dict[str, float]:
    """What the method dcm says of each label on the validation images; nothing of other methods."""
    rows = read_json(report) if report.is_file() else []
    kinds = ("accuracy", "balanced_accuracy", "auc")
    return {f"{kind}.{row['label']}": row[kind] for row in rows for kind in kinds if row[kind] is not None}


def outcome_check(asset: str) -> dg.AssetCheckSpec:
    """A check that warns where an arm is unavailable or diverged; what follows carries the outcome on."""
    return dg.AssetCheckSpec("ran", asset=asset, description="The arm ran; otherwise its outcome says why not.")


def outcome_result(outcome: Outcome) -> dg.AssetCheckResult:
    """The result of `outcome_check`."""
    return dg.AssetCheckResult(
        check_name="ran",
        passed=outcome.status == "ran",
        severity=dg.AssetCheckSeverity.WARN,
        description=outcome.reason or "it ran",
        metadata={"outcome": outcome.status},
    )
