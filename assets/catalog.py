"""What the catalog in Dagster's UI says of every asset beside its description: owners, documentation, column lineage.

Belongs here: facts that hold for whole groups, and from which columns a table's columns come. Not here: any asset.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from assets.step import COLUMN_LINEAGE
from pipeline.label_fields import POOLED
from pipeline.labels.source_columns import columns_of
from pipeline.recipe import Recipe

ENGINEERING, RADIOLOGY = "team:engineering", "team:radiology"

OF_RADIOLOGISTS = frozenset({"study_groups", "reviewed_descriptions", "unmapped_descriptions", "label_changes"})
"""Assets that ask for a radiologist's judgement."""

REVIEW, COHORT, TASKS = "review", "cohort", "tasks"
"""Groups whose assets several files make; with groups collapsed, the graph has no arrow back."""

DOCUMENTATION = {
    "archive": "docs/privacy.md",
    "labels": "docs/mapping.md",
    "images": "docs/architecture.md",
    REVIEW: "docs/architecture.md",
    "unmapped_descriptions": "docs/mapping.md",
    COHORT: "docs/architecture.md",
    TASKS: "docs/tasks.md",
    "pretraining": "docs/method.md",
    "reports": "docs/evaluation.md",
    "prediction": "docs/prediction.md",
}
"""Of groups, and of assets that another page tells of."""
OF_TASKS = "docs/tasks.md"
"""Documentation of the groups that are named after tasks."""

REJECTION = ("level", "id", "reason", "detail")
"""The columns of a table of rejections, named here since the tables' own schemas need PyArrow to be read."""

Columns = Mapping[str, list[tuple[str, str]]]
"""For each column, the tables and columns that it comes from."""


def with_catalog(assets: Iterable[dg.AssetsDefinition], recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`assets` with owner, documentation and, where it is known, column lineage on every one."""
    lineage = _lineage(recipe)

    def described(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.path[-1]
        owner = RADIOLOGY if name in OF_RADIOLOGISTS else ENGINEERING
        page = DOCUMENTATION.get(name) or DOCUMENTATION.get(spec.group_name or "", OF_TASKS)
        metadata: dict[str, Any] = {"documentation": page}
        if name in lineage:
            metadata[COLUMN_LINEAGE] = _as_dagster(lineage[name])
        return spec.replace_attributes(owners=[owner], metadata={**spec.metadata, **metadata})

    return list(dg.map_asset_specs(described, assets))


def _as_dagster(columns: Columns) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=table, column_name=name) for table, name in sources]
            for column, sources in columns.items()
        }
    )


def _lineage(recipe: Recipe) -> dict[str, Columns]:
    rejections = {name: [("rejected_files", name), ("rejected_frames", name)] for name in REJECTION}
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
        },
        "patient_splits": {"patient": [("dicom_index", "patient")]},
        "pretraining_pool": {
            **{name: [("image_cache", name)] for name in POOLED},
            "split": [("patient_splits", "split")],
        },
        "pool_labels": {label: [("weak_labels", label)] for label in recipe.labels.names},
    }
