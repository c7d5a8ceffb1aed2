"""From tags to weak labels: the assets of the group `labels`, the worklist, and each patient's side of the split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets.catalog import COHORT, REVIEW
from assets.failures import HOOKS
from assets.pictures import example_urls
from assets.step import FIRST, Context, Materializations, step, warning
from assets.tables import counts_table, markdown_table, size_and_columns, table_metadata, table_version
from assets.worklists import to_fill_in, write_pictures
from pipeline import code_versions
from pipeline.cohort.splits import save_sides, sides_of
from pipeline.errors import UserError
from pipeline.files import digest, write_text
from pipeline.labels.changes import changes_by_description, current_changes, save_mapping
from pipeline.labels.probe_tables import own_probes, probes_for
from pipeline.labels.reviewed_studies import ReviewedStudies, reviewed_studies
from pipeline.labels.sources import status_meanings
from pipeline.labels.study_groups import StudyGroups, study_groups_for
from pipeline.labels.weak_labels import TOO_RARE, unmapped_descriptions, weak_labels
from pipeline.locks import tables_lock
from pipeline.privacy.descriptions import with_rare_descriptions
from pipeline.privacy.training_exposure import encoders_trained_on_validation
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import LABEL_CHANGES, PATIENT_SPLITS, UNMAPPED_DESCRIPTIONS, weak_labels_table
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

GROUP = "labels"
WORKLIST = "unmapped_descriptions.csv"
TO_FILL_IN = (
    "Copy `unmapped_descriptions.csv` from the same folder into the folder that SONOTAG_STUDY_GROUPS names.",
    "Correct `groups`, and delete the question mark; an empty cell means reviewed, and in no group.",
    "Press *Reload definitions* (Lineage), and launch `ingest` again: `label_changes` shows what changed.",
)
EXAMPLES = 3
"""Pictures per description of the worklist, each of another patient."""
ILLUSTRATED = 20
"""Descriptions of the worklist with pictures, the most frequent ones: an event of Dagster carries them."""


@dataclass(frozen=True)
class MappingVersion:
    """The user's tables as part of code versions: an edit shows as stale before anything has run.

    Dagster calls stale what has another code version, or inputs that were made anew, but not what lies further down.
    """

    meaning: str
    """Of what each description means."""
    membership: str
    """Of which descriptions are in some group and which in none: this decides what trains, not as what."""
    probes: str
    """Of the user's rows of probes, which decide both; part of the other two."""


def mapping_version(recipe: Recipe, mapping: Path) -> MappingVersion:
    """The version of the table at `mapping`; one that cannot be read leaves the graph to be looked at."""
    try:
        groups = study_groups_for(mapping, recipe.labels) or StudyGroups({})
        own, studies = own_probes(mapping, recipe.labels), reviewed_studies(mapping, recipe.labels)
    except UserError:
        return MappingVersion("unreadable", "unreadable", "unreadable")  # the step says why
    probes = f"-{own.digest[:8]}" if own.rows else ""
    return MappingVersion(_meaning(groups, studies)[:8] + probes, _membership(groups, studies)[:8] + probes, probes)


def _meaning(groups: StudyGroups, studies: ReviewedStudies) -> str:
    return digest(groups.digest, studies.digest) if studies.decisions else groups.digest


def _membership(groups: StudyGroups, studies: ReviewedStudies) -> str:
    of_groups = digest(sorted((description, bool(names)) for description, names in groups.mapping.items()))
    return digest(of_groups, studies.membership) if studies.decisions else of_groups


def label_assets(recipe: Recipe, mapping: Path, version: MappingVersion) -> list[dg.AssetsDefinition]:
    """`study_groups`, the labels that follow from it, the worklist `unmapped_descriptions`, and `patient_splits`."""
    return [
        _study_groups(recipe, mapping, version),
        _weak_labels(recipe, mapping, version),
        _unmapped_descriptions(recipe, mapping),
        _patient_splits(recipe),
    ]


def _study_groups(recipe: Recipe, mapping: Path, version: MappingVersion) -> dg.AssetsDefinition:
    @dg.multi_asset(
        hooks=HOOKS,
        specs=_mapping_specs(version),
        op_tags=FIRST,
        name="read_study_groups",
    )
    def study_groups(context: Context, store: StoreFolder, tracking: Tracking) -> Materializations:
        with step(context, store, tracking, recipe) as here:
            groups = study_groups_for(mapping, recipe.labels) or StudyGroups({})
            studies = reviewed_studies(mapping, recipe.labels)
            in_none = sum(not names for names in groups.mapping.values())
            yield here.made(
                "study_groups",
                _meaning(groups, studies)[:16],
                {
                    "descriptions": len(groups.mapping),
                    "reviewed studies": len(studies.decisions),
                    "groups": ", ".join(recipe.labels.groups),
                },
                metrics={"descriptions": len(groups.mapping)},
            )
            counts = {"in some group": len(groups.mapping) - in_none, "in none": in_none}
            yield here.made("reviewed_descriptions", _membership(groups, studies)[:16], counts)

    return study_groups


def _mapping_specs(version: MappingVersion) -> list[dg.AssetSpec]:
    spec = partial(dg.AssetSpec, group_name=GROUP, kinds={"csv"})
    return [
        spec(
            "study_groups",
            description="The radiologist's table: which study description means which groups; empty if the "
            "recipe takes no labels from it.",
            code_version=f"{code_versions.LABELS}-{version.meaning}",
        ),
        spec(
            "reviewed_descriptions",
            description="Which descriptions of the radiologist's table are in some group, and which in none: "
            "what decides who trains, whatever the groups.",
            code_version=f"{code_versions.LABELS}-{version.membership}",
        ),
    ]


def _weak_labels(recipe: Recipe, mapping: Path, version: MappingVersion) -> dg.AssetsDefinition:
    @dg.multi_asset(hooks=HOOKS, specs=_label_specs(recipe, version), name="label_records")
    def label_records(
        context: Context, store: StoreFolder, tracking: Tracking, dicom_index: pa.Table
    ) -> Materializations:
        with step(context, store, tracking, recipe) as here:
            with here.holding(tables_lock(here.store, here.log), dicom_index) as (index,):
                labels, changes = _write_labels(here.store, index, recipe, mapping)
            status = Counter(labels["status"].to_pylist())
            by_status = {"records by status": counts_table("status", status, status_meanings(recipe.labels))}
            positives = {name: sum(value or 0 for value in labels[name].to_pylist()) for name in recipe.labels.names}
            yield here.made(
                "weak_labels",
                table_version(labels),
                {
                    **by_status,
                    "records per label": counts_table("label", positives, {}),
                    **table_metadata(weak_labels_table(recipe.labels.names), labels),
                },
                metrics={f"records.{key}": count for key, count in {**status, **positives}.items()},
            )
            yield here.made("labelled_records", table_version(labels.select(["sop_instance", "status"])), by_status)
            yield here.made(
                "label_changes",
                table_version(changes),
                {
                    "by description": dg.MetadataValue.md(markdown_table(changes_by_description(changes))),
                    **table_metadata(LABEL_CHANGES, changes),
                },
                metrics={"label_changes": changes.num_rows},
            )

    return label_records


def _label_specs(recipe: Recipe, version: MappingVersion) -> list[dg.AssetSpec]:
    relevant = recipe.labels.model_dump(exclude={"missing", "largest_unmapped_share"})
    code = f"{code_versions.LABELS}-{digest(relevant)[:8]}"
    descriptions = {
        "weak_labels": "One row per record: its labels as 0/1, null if the tags do not state them.",
        "labelled_records": "Which records the tags label, and why the others are excluded from training: the column "
        "`status` of weak_labels. Groups that change their meaning leave it as it is.",
        "label_changes": "What the newest version of the user's tables changed: one row per record whose labels are "
        "others now.",
    }
    by_membership = {"labelled_records"}
    return [
        dg.AssetSpec(
            name,
            deps=["dicom_index", "reviewed_descriptions" if name in by_membership else "study_groups"],
            description=description,
            code_version=f"{code}-{version.membership if name in by_membership else version.meaning}",
            group_name=GROUP,
            kinds={"parquet"},
        )
        for name, description in descriptions.items()
    ]


def _write_labels(store: Store, published: pa.Table, recipe: Recipe, mapping: Path) -> tuple[pa.Table, pa.Table]:
    """Write the weak labels, and what the newest mapping changed; returns both tables."""
    tables = store.experiment(recipe.name).tables
    groups, probes = study_groups_for(mapping, recipe.labels), probes_for(mapping, recipe.labels)
    studies = reviewed_studies(mapping, recipe.labels)
    index, _ = with_rare_descriptions(store.private, published)
    labels = weak_labels(index, groups, recipe.labels, probes, studies)
    changes = current_changes(index, published, groups, recipe, earlier=store, probes=probes, studies=studies)
    weak_labels_table(recipe.labels.names).write(tables, labels, recipe)
    LABEL_CHANGES.write(tables, changes)
    if groups is not None:
        save_mapping(store.private_of(recipe.name), groups, studies, probes.own)
    return labels, changes


def _unmapped_descriptions(recipe: Recipe, mapping: Path) -> dg.AssetsDefinition:
    @dg.asset(
        hooks=HOOKS,
        name="unmapped_descriptions",
        deps=["study_groups"],
        description="The radiologist's worklist: one row per study description that is not mapped yet, with "
        "counts, pictures, and suggested groups with their reasons: a suggestion, not a review.",
        code_version=f"{code_versions.LABELS}-{code_versions.SUGGESTIONS}",
        group_name=REVIEW,
        kinds={"parquet", "csv"},
    )
    def unmapped(
        context: Context,
        store: StoreFolder,
        archive: Archive,
        tracking: Tracking,
        dicom_index: pa.Table,
        image_cache: pa.Table,
    ) -> Materializations:
        with step(context, store, tracking, recipe) as here:
            with here.holding(tables_lock(here.store, here.log), dicom_index, image_cache) as (published, images):
                rows, private, index = _worklist(here.store, recipe, mapping, published)
                _write_page(here.store, recipe, archive, private, index, images)
                UNMAPPED_DESCRIPTIONS.write(here.store.experiment(recipe.name).tables, rows)
                share = sum(rows["images"].to_pylist()) / max(1, published.num_rows)
            yield here.made(
                "unmapped_descriptions",
                table_version(rows),
                {
                    **size_and_columns(UNMAPPED_DESCRIPTIONS, rows),
                    "for the radiologist": dg.MetadataValue.md(
                        _illustrated(here.store, recipe, rows, published, images)
                    ),
                    "to fill in": to_fill_in("unmapped_descriptions", recipe, TO_FILL_IN),
                    "groups to choose from": ", ".join(recipe.labels.groups),
                },
                metrics={"unmapped_descriptions": rows.num_rows, "unmapped_share": share},
            )

    return unmapped


def _worklist(store: Store, recipe: Recipe, mapping: Path, published: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The worklist as it may be published, the whole one, and the index with all descriptions.

    The whole worklist is written to the private folder, as a CSV to fill in.
    """
    from pipeline.labels.suggestions import Suggester
    from pipeline.labels.worklist import publishable, with_suggestions, worklist_csv

    groups = study_groups_for(mapping, recipe.labels)
    reviewed = groups or StudyGroups({})
    index, rare = with_rare_descriptions(store.private, published)
    names = recipe.labels.groups
    private = with_suggestions(unmapped_descriptions(index, groups), Suggester(reviewed, names))
    write_text(store.private_of(recipe.name) / WORKLIST, worklist_csv(private))
    shown = Suggester(publishable(reviewed, published), names)
    return with_suggestions(unmapped_descriptions(index, groups, rare), shown), private, index


def _write_page(
    store: Store,
    recipe: Recipe,
    archive: Archive,
    private: pa.Table,
    index: pa.Table,
    images: pa.Table,
) -> None:
    """The page of pictures of all descriptions that can be mapped."""
    from pipeline.labels.worklist import descriptions_of, facts_of

    about = (
        "Study descriptions that are not mapped yet.",
        f"Groups to choose from: {', '.join(recipe.labels.groups)}.",
    )
    named = [row for row in private.to_pylist() if row["study_description"]]
    rows = [(row["study_description"], row["study_description"], facts_of(row)) for row in named]
    write_pictures(
        store, recipe, archive, "unmapped_descriptions", about, TO_FILL_IN, rows, descriptions_of(index), index, images
    )


def _illustrated(store: Store, recipe: Recipe, rows: pa.Table, published: pa.Table, images: pa.Table) -> str:
    """The worklist as a Markdown table with pictures."""
    from pipeline.labels.worklist import descriptions_of, example_images

    shown = rows.slice(0, ILLUSTRATED)
    names = shown["study_description"].to_pylist()
    wanted = [name for name in names if name not in ("", TOO_RARE)]
    pictures = example_urls(store, recipe, example_images(descriptions_of(published), images, wanted, EXAMPLES))
    shown = shown.set_column(0, "study_description", pa.array([name or "(no description)" for name in names]))
    if shown["described_by"].null_count == shown.num_rows:
        shown = shown.drop_columns("described_by")
    return markdown_table(shown, [pictures.get(name, []) for name in names])


def _patient_splits(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        hooks=HOOKS,
        deps=["image_cache", "near_duplicates"],  # those of every recipe are read: LOOK_BACKS
        description="One row per patient: train or val. The split is one for all recipes of the store. A patient keeps "
        "its side when the archive grows, and patients that share a study or an image, equal or nearly equal, are on "
        "one side.",
        code_version=f"{code_versions.COHORT}-{recipe.cohort.validation_share}",
        group_name=COHORT,
        kinds={"parquet"},
        check_specs=[
            dg.AssetCheckSpec(
                "encoders_kept_validation_apart",
                asset="patient_splits",
                description="No encoder of the store trained on a patient that is in val now.",
            )
        ],
    )
    def patient_splits(
        context: Context, store: StoreFolder, tracking: Tracking, dicom_index: pa.Table
    ) -> Materializations:
        from pipeline.cohort.store_split import split_store

        with step(context, store, tracking, recipe) as here:
            with here.holding(tables_lock(here.store, here.log), dicom_index) as (index,):
                split = split_store(index, recipe.cohort.validation_share, earlier=here.store)
                splits, moved = split.splits, split.moved
                in_val = [patient for patient, side in sides_of(splits).items() if side == "val"]
                across = encoders_trained_on_validation(here.store, in_val, moved)
                save_sides(here.store, splits)
            sides = splits["split"].to_pylist()
            counts = {side: sides.count(side) for side in ("train", "val")}
            yield here.made(
                "patient_splits",
                table_version(splits),
                {
                    **table_metadata(PATIENT_SPLITS, splits),
                    **counts,
                    "groups of linked patients": len(split.links),
                    "groups of patients with a common study": len(split.ties),
                    "moved to val, since a study was on both sides": len(moved),
                },
                metrics={f"patients.{side}": count for side, count in counts.items()},
                checks=[_kept_apart(across, len(moved))],
            )

    return patient_splits


def _kept_apart(encoders: Sequence[str], moved: int) -> dg.AssetCheckResult:
    found = "no encoder trained on a patient that is in val now"
    if encoders:
        found = f"{len(encoders)} encoders trained on patients that are in val now; `pretrain` makes them again: "
        found += ", ".join(encoders)
    named = {"encoders": ", ".join(encoders) or "none", "moved in this run": moved}
    return warning(not encoders, found, "encoders_kept_validation_apart", **named)
