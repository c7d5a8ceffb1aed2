"""Pretrained encoders (`pipeline.pretraining`): one asset per backbone and method or variant."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa

from assets.failures import HOOKS
from assets.labels import MappingVersion
from assets.step import FIRST, Context, Materializations, Step, named_link, step, warning
from pipeline import code_versions
from pipeline.files import digest, read_json
from pipeline.markdown import inline
from pipeline.methods import METHODS, SHOWN_LABELS
from pipeline.methods.dcm import SCORES
from pipeline.pretraining.top_folders import sources_of
from pipeline.recipe import Recipe
from pipeline.settings import Backbone, format_setting
from pipeline.tables import pretraining_pool_table
from pipeline.training.outcome import Outcome, worst_of
from resources.compute import POOL, Compute
from resources.mlflow_records import Input
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.pretraining.controls import Sources
    from pipeline.pretraining.dataset import PretrainingSet
    from pipeline.pretraining.plan import PlannedEncoder

GROUP = "pretraining"


def encoder_name(backbone: Backbone, encoder: str) -> str:
    """The asset's name; its last part alone tells two nodes of the graph apart."""
    return f"{backbone}_{encoder}_encoder"


def encoder_assets(recipe: Recipe, mapping: MappingVersion) -> list[dg.AssetsDefinition]:
    """`preflight`, and one asset per backbone and method or variant of the recipe, which trains all seeds."""
    settings = recipe.pretraining
    which = [(backbone, encoder) for backbone in settings.backbones for encoder in settings.encoders]
    return [_preflight(recipe), *(_encoder(recipe, *one, mapping) for one in which)]


def _preflight(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        description="What the recipe is going to take: hours, memory and disk, from a few steps of each encoder and of "
        "each task's models, that are still to be trained. Fails if the disk cannot hold the encoders.",
        code_version=code_versions.PRETRAINING,
        group_name=GROUP,
        kinds={"torch"},
        op_tags=FIRST,
    )
    def preflight(
        context: Context, store: StoreFolder, compute: Compute, tracking: Tracking, pretraining_pool: pa.Table
    ) -> Materializations:
        from pipeline.archive.protections import protection_lines, protections
        from pipeline.downstream.preflight import preflight as forecasts_of
        from pipeline.training.preflight import format_range, total_hours

        with step(context, store, tracking, recipe) as here:
            protected = list(protection_lines(protections()))
            for line in protected:
                here.log(f"Preflight: {line}.")
            with here.holding(compute.training(here.log), pretraining_pool) as (rows,):
                found = forecasts_of(rows, recipe, here.store, here.log)
            hours, lines = total_hours(found), [str(forecast) for forecast in found]
            yield here.made(
                "preflight",
                digest(lines)[:16],
                {
                    "all together": format_range(hours),
                    "forecast": dg.MetadataValue.md(
                        "\n".join(f"- {inline(line)}" for line in lines) or "Nothing is left to train."
                    ),
                    "while hostile files are read": dg.MetadataValue.md("\n".join(f"- {line}" for line in protected)),
                    "hours at least": round(hours[0], 3),
                    "hours at most": round(hours[1], 3),
                },
                metrics={"hours_at_least": hours[0], "hours_at_most": hours[1]},
            )

    return preflight


def _encoder(recipe: Recipe, backbone: Backbone, encoder: str, mapping: MappingVersion) -> dg.AssetsDefinition:
    asset, settings = encoder_name(backbone, encoder), recipe.pretraining
    learns_labels = learns_mapped_labels(recipe, encoder)
    seeds = [settings.settings_of(encoder, seed).model_dump() for seed in settings.seeds]
    left_out = settings.left_out_of(encoder)
    shown = [settings.labels_of(encoder), *([left_out] if left_out is not None else [])]
    chosen = digest(seeds, *shown, recipe.images.model_dump())[:8]

    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        name=asset,
        deps=["pool_labels"] if learns_labels else [],
        description=f"{backbone} encoder: {_described(recipe, encoder)}.",
        code_version=f"{code_versions.PRETRAINING}-{chosen}-{mapping.meaning if learns_labels else mapping.membership}",
        group_name=GROUP,
        kinds={"torch"},
        check_specs=[outcome_check(asset)],
    )
    def encoder_asset(
        context: Context, store: StoreFolder, compute: Compute, tracking: Tracking, pretraining_pool: pa.Table
    ) -> Materializations:
        from pipeline.pretraining.plan import planned_encoders
        from pipeline.pretraining.pool import pool_with_pixels
        from pipeline.pretraining.start import refuse_exposed_starts

        params = {"backbone": backbone, "encoder": encoder, "method": settings.method_of(encoder).name}
        with step(context, store, tracking, recipe, params) as here:
            experiment = here.store.experiment(recipe.name)
            plans = planned_encoders(recipe, experiment, backbone, encoder)
            with here.holding(compute.training(here.log), pretraining_pool) as (rows,):
                refuse_exposed_starts(((plan.settings, plan.backbone) for plan in plans), rows, here.store.private)
                pool, sources = pool_with_pixels(rows, here.store, recipe), sources_of(rows, here.store.private)
                outcomes = [_trained(here, tracking, recipe, plan, pool, sources, len(plans) == 1) for plan in plans]
            yield _made(here, recipe, asset, plans, outcomes)

    return encoder_asset


def learns_mapped_labels(recipe: Recipe, encoder: str) -> bool:
    """Whether a new mapping of descriptions makes the encoder stale: labels that follow from it train or select it."""
    settings = recipe.pretraining
    shown = settings.method_of(encoder).labelled and settings.labels_of(encoder) != "source"
    return shown or settings.settings_of(encoder, settings.seeds[0]).selected_by_labels


def _described(recipe: Recipe, encoder: str) -> str:
    """What an encoder is, in the graph: its method, and what its variant changes."""
    settings = recipe.pretraining
    said = settings.method_of(encoder).description
    if encoder not in settings.variants:
        return said
    labels, changed = settings.labels_of(encoder), settings.variants[encoder].settings
    changes = [f"shown in place of the weak labels: {SHOWN_LABELS[labels].description}"] * (labels != "own")
    if (left_out := settings.left_out_of(encoder)) is not None:
        changes.append(f"without the images of source {left_out}")
    return "; ".join([said, *changes, *(f"{name} {format_setting(value)}" for name, value in changed.items())])


def _trained(
    here: Step,
    tracking: Tracking,
    recipe: Recipe,
    plan: "PlannedEncoder",
    pool: "PretrainingSet",
    sources: "Sources",
    alone: bool,
) -> Outcome:
    """Train one seed's encoder and register it; in the step's own MLflow run if it is `alone`, else in a child."""
    from pipeline.pretraining.encoder_folder import encoder_digest
    from pipeline.pretraining.start import start_record

    asset = encoder_name(plan.backbone, plan.encoder)
    with nullcontext(here.run) if alone else here.part(tracking, f"{asset}, seed {plan.settings.seed}") as run:
        shown = plan.pool(pool, sources)
        digests = {"image_digest": shown.image_digest, "label_digest": shown.label_digest}
        settings = plan.settings.model_dump(exclude={"imagenet_weights", "external"}) | start_record(
            plan.settings, plan.backbone
        )
        left_out = {} if plan.without_source is None else {"without_source": plan.without_source}
        run.params({"labels": plan.labels, **left_out, **digests, **settings})
        for data in _inputs(plan.method, shown, recipe):
            run.input(data)
        outcome = plan.pretrain(shown, here.log, lambda epoch, values: run.metrics(values, epoch))
        run.metrics(_label_metrics(plan.folder / SCORES))
        reports = [name for name in METHODS[plan.method].files if name.endswith(".json")]
        run.files([plan.folder / name for name in (*_FILES, *reports)])
        if outcome.status == "ran":
            seed = {"seed": str(plan.settings.seed)}
            run.encoder(registered_name(recipe, asset), encoder_digest(plan.folder), plan.folder, seed)
    return outcome


def registered_name(recipe: Recipe, asset: str) -> str:
    """What the encoder or the task's champion is called in MLflow's registry."""
    return f"{recipe.name}.{asset}"


def _inputs(method: str, pool: "PretrainingSet", recipe: Recipe) -> list[Input]:
    """The data that the method is shown: images, and of the methods that see labels those."""
    from pipeline.pretraining.encoder_folder import count_labels

    location = f"tables/{pretraining_pool_table(recipe.labels.names).name}.parquet"
    size = {"images.train": len(pool.train), "images.val": len(pool.val)}
    images = Input(name="pretraining images", digest=pool.image_digest, location=location, use="training", size=size)
    if not METHODS[method].labelled:
        return [images]
    size = {label.name: label.carried for label in count_labels(pool)}
    shown = SHOWN_LABELS[pool.shown].description
    return [images, Input(name=shown, digest=pool.label_digest, location=location, use="training", size=size)]


_CARD = "model_card.md"
_FILES = (_CARD, "preprocessing.json", "curves.csv", "outcome.json", "encoder.safetensors")


def _made(
    here: Step, recipe: Recipe, asset: str, plans: "Sequence[PlannedEncoder]", outcomes: Sequence[Outcome]
) -> dg.MaterializeResult[None]:
    """Report the worst outcome, and the model card of each seed."""
    worst, registered = worst_of(outcomes), registered_name(recipe, asset)
    folders = [str(plan.folder.relative_to(here.store.root)) for plan in plans]
    return here.made(
        asset,
        digest(*(outcome.fingerprint for outcome in outcomes))[:16],
        {
            "outcome": f"{worst.status}: {worst.reason}" if worst.reason else worst.status,
            "folder in the store" if len(folders) == 1 else "folders in the store": ", ".join(folders),
            **(_in_registry(here.run.url, registered) if any(one.status == "ran" for one in outcomes) else {}),
            **_cards(plans),
        },
        checks=[outcome_result(worst)],
    )


def _cards(plans: "Sequence[PlannedEncoder]") -> dict[str, dg.MarkdownMetadataValue]:
    several = len(plans) > 1
    cards = {f"model card, seed {p.settings.seed}" if several else "model card": p.folder / _CARD for p in plans}
    return {says: dg.MetadataValue.md(card.read_text("utf-8")) for says, card in cards.items() if card.is_file()}


def _in_registry(run: str | None, name: str) -> dict[str, dg.MarkdownMetadataValue]:
    """Link to the encoder in MLflow's registry; empty if MLflow could not be reached."""
    return {"MLflow registry": named_link(name, f"{run.split('/#/')[0]}/#/models/{name}")} if run else {}


def _label_metrics(report: Path) -> dict[str, float]:
    """What the method dcm says of each label on the validation images; nothing of other methods."""
    rows = read_json(report) if report.is_file() else []
    kinds = ("accuracy", "balanced_accuracy", "auc")
    return {f"{kind}.{row['label']}": row[kind] for row in rows for kind in kinds if row[kind] is not None}


def outcome_check(asset: str) -> dg.AssetCheckSpec:
    """A check that warns if an arm is unavailable or diverged; what follows carries the outcome on."""
    return dg.AssetCheckSpec("ran", asset=asset, description="The arm ran; otherwise its outcome says why not.")


def outcome_result(outcome: Outcome) -> dg.AssetCheckResult:
    """The result of `outcome_check`."""
    return warning(outcome.status == "ran", outcome.reason or "it ran", "ran", outcome=outcome.status)
