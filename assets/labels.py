"""From tags to weak labels, and who is on which side of the split.

Belongs here: the assets of the group `labels`. Not here: the rules (`pipeline.labels`, `pipeline.cohort`).
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.failures import HOOKS
from assets.step import FIRST, step
from assets.tables import as_csv, markdown_table, table_metadata, table_version
from pipeline import code_versions
from pipeline.files import digest, write_text
from pipeline.labels.study_groups import StudyGroups, study_groups_for
from pipeline.recipe import Recipe
from resources.store import StoreFolder
from resources.tracking import Tracking

GROUP = "labels"
WORKLIST = "unmapped_descriptions.csv"


def label_assets(recipe: Recipe, mapping: Path) -> list[dg.AssetsDefinition]:
    """`study_groups`, `weak_labels` with `unmapped_descriptions`, and `patient_splits`."""
    return [_study_groups(recipe, mapping), _weak_labels(recipe, mapping), _patient_splits(recipe)]


def _study_groups(recipe: Recipe, mapping: Path) -> dg.AssetsDefinition:
    @dg.asset(
        hooks=HOOKS,
        description="The radiologist's table: which study description means which groups; empty where the recipe takes "
        "no labels from it.",
        code_version=code_versions.LABELS,
        group_name=GROUP,
        kinds={"csv"},
        op_tags=FIRST,
        check_specs=[
            dg.AssetCheckSpec(
                "left_and_right_agree",
                asset="study_groups",
                description="Descriptions that differ in LEFT and RIGHT alone share their groups (for the reviewer).",
            )
        ],
    )
    def study_groups(context: dg.AssetExecutionContext, tracking: Tracking) -> Iterator[dg.MaterializeResult[None]]:
        with step(context, tracking, recipe) as here:
            groups = study_groups_for(mapping, recipe.labels) or StudyGroups({})
            disagreements = groups.left_right_disagreements()
            yield here.made(
                "study_groups",
                groups.digest[:16],
                {"descriptions": len(groups.mapping), "groups": ", ".join(recipe.labels.groups)},
                metrics={"descriptions": len(groups.mapping)},
                checks=[
                    dg.AssetCheckResult(
                        check_name="left_and_right_agree",
                        passed=not disagreements,
                        severity=dg.AssetCheckSeverity.WARN,
                        metadata={"disagreements": [" / ".join(pair) for pair in disagreements]},
                    )
                ],
            )

    return study_groups


def _weak_labels(recipe: Recipe, mapping: Path) -> dg.AssetsDefinition:
    version = f"{code_versions.LABELS}-{digest(recipe.labels.model_dump(exclude={'missing'}))[:8]}"

    @dg.multi_asset(
        hooks=HOOKS,
        specs=[
            dg.AssetSpec(
                "weak_labels",
                deps=["dicom_index", "study_groups"],
                description="One row per record: its labels as 0/1, null where the tags do not say.",
                code_version=version,
                group_name=GROUP,
                kinds={"parquet"},
            ),
            dg.AssetSpec(
                "unmapped_descriptions",
                deps=["dicom_index", "study_groups"],
                description="One row per study description that the study groups do not know, with counts.",
                code_version=version,
                group_name=GROUP,
                kinds={"parquet"},
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "label_space_unchanged",
                asset="weak_labels",
                blocking=True,
                description="The label columns are the recipe's, in its order, and hold 0, 1 or nothing.",
            )
        ],
        name="label_records",
    )
    def label_records(
        context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.archive.descriptions import with_rare_descriptions
        from pipeline.labels.weak_labels import unmapped_descriptions, weak_labels
        from pipeline.tables import DICOM_INDEX, UNMAPPED_DESCRIPTIONS, weak_labels_table

        table = weak_labels_table(recipe.labels.names)
        with step(context, tracking, recipe) as here:
            place = store.open()
            index, rare = with_rare_descriptions(place.private, DICOM_INDEX.read(place.tables))
            groups = study_groups_for(mapping, recipe.labels)
            labels = weak_labels(index, groups, recipe.labels)
            unmapped = unmapped_descriptions(index, groups, rare)
            write_text(place.private / WORKLIST, as_csv(unmapped_descriptions(index, groups)))
            table.write(place.tables, labels)
            UNMAPPED_DESCRIPTIONS.write(place.tables, unmapped)
            status = {row["values"]: row["counts"] for row in labels["status"].value_counts().to_pylist()}
            positives = {name: sum(value or 0 for value in labels[name].to_pylist()) for name in recipe.labels.names}
            yield here.made(
                "weak_labels",
                table_version(labels),
                {**table_metadata(table, labels), "status": status, "images per label": positives},
                metrics={f"records.{key}": count for key, count in (status | positives).items()},
                checks=[_label_space(recipe, labels.column_names[2:], labels.select(recipe.labels.names).to_pylist())],
            )
            yield here.made(
                "unmapped_descriptions",
                table_version(unmapped),
                {
                    **table_metadata(UNMAPPED_DESCRIPTIONS, unmapped),
                    "for the radiologist": dg.MetadataValue.md(markdown_table(unmapped)),
                    "with the rare ones": f"private/{WORKLIST} in the store",
                },
                metrics={"unmapped_descriptions": unmapped.num_rows},
            )

    return label_records


def _label_space(recipe: Recipe, columns: list[str], rows: list[dict[str, int | None]]) -> dg.AssetCheckResult:
    strange = {value for row in rows for value in row.values()} - {0, 1, None}
    return dg.AssetCheckResult(
        check_name="label_space_unchanged",
        asset_key="weak_labels",
        passed=tuple(columns) == recipe.labels.names and not strange,
        metadata={"columns": columns, "recipe": list(recipe.labels.names)},
    )


def _patient_splits(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        hooks=HOOKS,
        deps=["dicom_index", "image_cache"],  # the images tell which patients are linked
        description="One row per patient: train or val. A patient keeps its side when the archive grows, and patients "
        "that share an image are on one side.",
        code_version=f"{code_versions.COHORT}-{recipe.cohort.validation_share}",
        group_name=GROUP,
        kinds={"parquet"},
    )
    def patient_splits(
        context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.cohort.repeats import linked_patients
        from pipeline.cohort.splits import read_draws, split_patients
        from pipeline.tables import DICOM_INDEX, IMAGES, PATIENT_SPLITS

        with step(context, tracking, recipe) as here:
            place = store.open()
            patients = set(DICOM_INDEX.read(place.tables)["patient"].to_pylist())
            previous = PATIENT_SPLITS.read(place.tables) if PATIENT_SPLITS.path(place.tables).exists() else None
            links = linked_patients(IMAGES.read(place.tables))
            splits = split_patients(
                read_draws(place.private, patients), previous, recipe.cohort.validation_share, links
            )
            PATIENT_SPLITS.write(place.tables, splits)
            sides = splits["split"].to_pylist()
            counts = {side: sides.count(side) for side in ("train", "val")}
            yield here.made(
                "patient_splits",
                table_version(splits),
                {**table_metadata(PATIENT_SPLITS, splits), **counts, "groups of linked patients": len(links)},
                metrics={f"patients.{side}": count for side, count in counts.items()},
            )

    return patient_splits
