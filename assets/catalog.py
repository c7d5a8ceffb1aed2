"""What Dagster's catalog shows beside an asset's description: owner, documentation, column lineage, look-backs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from assets.step import BLOCKING_CHECKS, COLUMN_LINEAGE, GROUP_TAG
from pipeline.errors import UserError
from pipeline.label_fields import POOLED
from pipeline.labels.sources import columns_of
from pipeline.recipe import Recipe
from pipeline.tables import QUARANTINE, SHARED

ENGINEERING, RADIOLOGY = "team:engineering", "team:radiology"

OF_RADIOLOGISTS = frozenset(
    {
        "study_groups",
        "reviewed_descriptions",
        "unmapped_descriptions",
        "unmapped_probes",
        "doubtful_labels",
        "label_changes",
    }
)
"""Assets that ask for a radiologist's judgement."""

DOUBTFUL = "doubtful_labels"
"""The asset of the job `audit`; the other assets of its group are of `ingest`."""

ARCHIVE, REVIEW, COHORT, TASKS = "archive", "review", "cohort", "tasks"
"""Groups whose assets several files make; with groups collapsed, the graph has no arrow back."""
EVALUATION = "evaluation"
"""The group of `frozen_scores` and `embeddings`, which reports show."""

DOCUMENTATION = {
    ARCHIVE: "docs/privacy.md",
    "labels": "docs/mapping.md",
    "images": "docs/architecture.md",
    REVIEW: "docs/architecture.md",
    "unmapped_descriptions": "docs/mapping.md",
    "unmapped_probes": "docs/mapping.md",
    DOUBTFUL: "docs/mapping.md",
    COHORT: "docs/architecture.md",
    "label_report": "docs/mapping.md",
    TASKS: "docs/tasks.md",
    "pretraining": "docs/method.md",
    EVALUATION: "docs/evaluation.md",
    "reports": "docs/evaluation.md",
    "prediction": "docs/prediction.md",
}
"""Of groups, and of assets that another page tells of."""
OF_TASKS = "docs/tasks.md"
"""Documentation of the groups that are named after tasks."""

_OF_MODELS = "<backbone>_<arm>_<task>"
LOOK_BACKS = {
    "dicom_index": "the files that the last scan read, which are not read again unless they changed",
    "image_cache": "the last split and every recipe's images, so that a new image that would link both sides of the "
    "split is left out",
    "label_changes": "the mapping of the last run, with which the present one is compared",
    "patient_splits": "the last split, and the images and near-duplicates of every recipe, since patients keep their "
    "side and linked ones share it; the patients on which each encoder was trained, for the check",
    "pretraining_pool": "the tasks' images if they are prepared, for the check",
    "preflight": "the tasks' images if they are prepared, and what is trained already",
    "frozen_scores": "the last scores, of which those of unchanged encoders, images and code stay",
    "embeddings": "the last embeddings, of which those of unchanged encoders, images and code stay",
    _OF_MODELS: "the pool as it is now, and the patients on which the encoder was trained, for the check",
    "<task>_champion": "the last champion, which stays unless another is significantly better",
}
"""What an asset reads of what earlier runs left, which no edge of the graph shows: `earlier` names such a parameter."""

Columns = Mapping[str, list[tuple[str, str]]]
"""For each column, the tables and columns that it comes from."""


def key_of(recipe: Recipe, asset: str) -> dg.AssetKey:
    """The key of an asset: the name of its recipe and its own; of an asset that all recipes share its own alone."""
    return dg.AssetKey([asset] if asset in SHARED else [recipe.name, asset])


def group_of(recipe: Recipe, group: str, alone: bool) -> str:
    """The name of a group: the recipe stands before it, unless it is `alone` or the group is shared."""
    return group if alone or group == ARCHIVE else f"{recipe.name}_{group}"


def with_catalog(
    assets: Iterable[dg.AssetsDefinition], recipe: Recipe, alone: bool, checks: Iterable[dg.AssetChecksDefinition] = ()
) -> list[dg.AssetsDefinition]:
    """`assets` with their recipe in their keys, and with owner, documentation, known column lineage and `checks`.

    If the recipe is not `alone`, it prefixes groups and steps, which distinguishes those of several recipes.
    Raises `UserError` if two assets would have one name.
    """
    lineage, blocking = _lineage(recipe), defaultdict(list)
    for spec in (spec for check in checks for spec in check.check_specs if spec.blocking):
        blocking[spec.asset_key.path[-1]].append(spec.name)

    def described(spec: dg.AssetSpec) -> dg.AssetSpec:
        name, group = spec.key.path[-1], spec.group_name or ""
        owner = RADIOLOGY if name in OF_RADIOLOGISTS else ENGINEERING
        page = DOCUMENTATION.get(name) or DOCUMENTATION.get(group, OF_TASKS)
        metadata: dict[str, Any] = {"documentation": page}
        if name in blocking:
            metadata[BLOCKING_CHECKS] = " ".join(blocking[name])
        if name in lineage:
            metadata[COLUMN_LINEAGE] = _as_dagster(lineage[name], recipe)
        return spec.replace_attributes(
            description=" ".join([spec.description or "", *_look_back(name, group)]),
            owners=[owner],
            metadata={**spec.metadata, **metadata},
            group_name=group_of(recipe, group, alone),
            tags={**spec.tags, **({} if alone else {GROUP_TAG: group})},
        )

    named = list(dg.map_asset_specs(described, assets))
    names = [key.path[-1] for asset in named for key in asset.keys]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"Recipe {recipe.name}: two assets would be called {name}; rename a task or variant.")
    keys = {dg.AssetKey(name): key_of(recipe, name) for name in names}
    named = [asset.with_attributes(asset_key_replacements=keys) for asset in named]
    return named if alone else [_with_step(asset, f"{recipe.name}__{asset.op.name}") for asset in named]


def _look_back(asset: str, group: str) -> list[str]:
    """The sentence of the description that names what the asset reads of earlier runs; none if it reads nothing."""
    kind = "" if group in DOCUMENTATION else "<task>_champion" if asset == f"{group}_champion" else _OF_MODELS
    found = LOOK_BACKS.get(asset) or LOOK_BACKS.get(kind)
    return [f"Looks back at {found}."] if found else []


def _with_step(asset: dg.AssetsDefinition, name: str) -> dg.AssetsDefinition:
    """`asset`, whose step is called `name`: no two of a job may have one name. Dagster has no public way to do so."""
    step = asset.op.with_replaced_properties(name=name)
    return dg.AssetsDefinition.dagster_internal_init(**{**asset.get_attributes_dict(), "node_def": step})


def _as_dagster(columns: Columns, recipe: Recipe) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key_of(recipe, table), column_name=name) for table, name in sources]
            for column, sources in columns.items()
        }
    )


def _lineage(recipe: Recipe) -> dict[str, Columns]:
    rejections = {name: [("rejected_files", name), ("rejected_frames", name)] for name in QUARANTINE.schema.names}
    from_tags = {
        label: [("dicom_index", column) for column in columns_of(source)]
        for source in recipe.labels.sources
        for label in source.names
    }
    every_tag = sorted({source for sources in from_tags.values() for source in sources})
    return {
        "quarantine": rejections,
        "weak_labels": {"sop_instance": [("dicom_index", "sop_instance")], "status": every_tag, **from_tags},
        "unmapped_descriptions": {
            "study_description": [("dicom_index", "study_description")],
            "images": [("dicom_index", "sop_instance"), ("dicom_index", "study_description")],
            "patients": [("dicom_index", "patient"), ("dicom_index", "study_description")],
            "described_by": [("dicom_index", "described_by")],
        },
        "unmapped_probes": {name: [("dicom_index", name)] for name in ("manufacturer", "model")}
        | {
            "name": [("dicom_index", "transducer_data")],
            "images": [("dicom_index", "sop_instance")],
            "patients": [("dicom_index", "patient")],
        },
        DOUBTFUL: {name: [("dicom_index", name)] for name in ("study", "patient", "study_description")}
        | {"tags_say": [("weak_labels", group) for group in recipe.labels.groups]}
        | {"images": [("image_cache", "sop_instance")]},
        "patient_splits": {"patient": [("dicom_index", "patient")]},
        "pretraining_pool": {
            **{name: [("image_cache", name)] for name in POOLED},
            "split": [("patient_splits", "split")],
        },
        "pool_labels": {label: [("weak_labels", label)] for label in recipe.labels.names},
    }
