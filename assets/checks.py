"""Checks of what is in the store, each a step after its asset; checks of an asset's own run are beside the asset."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.catalog import key_of
from assets.failures import HOOKS
from assets.leaks import near_pool_hint, near_pool_metadata, review_metadata
from assets.step import FIRST, failing, lets_pass, warning
from pipeline.blocking_checks import Check, attempt
from pipeline.cohort.pool import (
    label_balance,
    patients_on_both_sides,
    pool_shortage,
    rare_labels,
    studies_on_both_sides,
)
from pipeline.images.cache import cache_folder, check_sample
from pipeline.labels.reviewed_studies import reviewed_studies
from pipeline.labels.study_groups import StudyGroups, describe_disagreements, study_groups_for
from pipeline.labels.weak_labels import is_label_space
from pipeline.privacy.descriptions import with_rare_descriptions
from pipeline.recipe import Recipe
from pipeline.store import Store
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tables import current_table

NAMED = 20
"""Files, or rows of the mapping, that a check names at most."""


@dataclass(frozen=True)
class Subject:
    """What a check examines beside its tables."""

    asset: str
    recipe: Recipe
    store: Store
    archive: Archive
    mapping: Path
    run_id: str

    @property
    def cache(self) -> Path:
        """The image cache of the recipe."""
        return cache_folder(self.store.images, self.recipe.images, self.recipe.archive)

    def study_groups(self) -> StudyGroups:
        """The radiologist's table; raises `UserError` if it cannot be read."""
        return study_groups_for(self.mapping, self.recipe.labels) or StudyGroups({})


Find = Callable[..., dg.AssetCheckResult]
"""Takes a `Subject` and the check's tables, in their order."""


@dataclass(frozen=True)
class _Check:
    asset: str
    find: Find
    """Its name is that of the check, its docstring the description."""
    tables: tuple[str, ...] = ()
    """The assets whose tables it takes."""
    deps: tuple[str, ...] = ()
    """Assets that it waits for in a run that makes them."""
    blocking: bool = False

    def spec(self, recipe: Recipe) -> dg.AssetCheckSpec:
        """As Dagster shows it."""
        return dg.AssetCheckSpec(
            self.find.__name__,
            asset=key_of(recipe, self.asset),
            additional_deps=[key_of(recipe, name) for name in (*self.tables, *self.deps) if name != self.asset],
            blocking=self.blocking,
            description=inspect.getdoc(self.find),
        )


def asset_checks(
    recipe: Recipe, mapping: Path, assets: Iterable[dg.AssetsDefinition], alone: bool
) -> list[dg.AssetChecksDefinition]:
    """The checks of the recipe's `assets`; if it is not `alone`, it prefixes their steps."""
    groups = {spec.key.path[-1]: spec.group_name or "" for asset in assets for spec in asset.specs}
    prefix = "" if alone else f"{recipe.name}__"
    return [_definition(check, recipe, mapping, groups[check.asset], prefix) for check in _checks(recipe)]


def _definition(check: _Check, recipe: Recipe, mapping: Path, group: str, prefix: str) -> dg.AssetChecksDefinition:
    spec = check.spec(recipe)
    recorded = [Check(asset=check.asset, check=spec.name, group=group)] if check.blocking else []

    @dg.multi_asset_check(
        name=f"{prefix}{check.asset}_{spec.name}",
        specs=[spec],
        ins={name: dg.AssetIn(key_of(recipe, name)) for name in check.tables},
        op_tags=FIRST,
    )
    def run(
        context: dg.AssetCheckExecutionContext, store: StoreFolder, archive: Archive, **tables: pa.Table
    ) -> Iterator[dg.AssetCheckResult]:
        with failing(context.get_step_execution_context()):
            opened = store.open()
            with attempt(opened, recipe.name, (), recorded) as here:
                current = (current_table(tables[name], opened, recipe) for name in check.tables)
                subject = Subject(check.asset, recipe, opened, archive, mapping, context.run.run_id)
                result = check.find(subject, *current)
                for one in recorded:
                    here.record(one, lets_pass(result), result.description or "")
            yield result._replace(check_name=spec.name)

    # Dagster's decorator takes no hooks.
    return dg.AssetChecksDefinition(**{**run.get_attributes_dict(), "hook_defs": HOOKS, "execution_type": None})


def _checks(recipe: Recipe) -> list[_Check]:
    tasks = tuple(f"{task}_images" for task in recipe.downstream.tasks)
    pool, index, images, labels = "pretraining_pool", "dicom_index", "image_cache", "weak_labels"
    return [
        _Check("study_groups", left_and_right_agree),
        _Check(labels, label_space_unchanged, (labels,), blocking=True),
        _Check("unmapped_descriptions", few_records_unmapped, ("unmapped_descriptions", index)),
        _Check("unmapped_descriptions", mapping_rows_are_carried, (index,)),
        _Check(images, cache_intact, (images,), blocking=True),
        _Check(images, no_text_kept_whole, (images, index)),
        _Check("near_duplicates", no_near_duplicates, ("near_duplicates", images)),
        *(_Check(task, no_image_in_two_splits, (task,), blocking=True) for task in tasks),
        _Check(pool, no_patient_on_both_sides, (pool, index), blocking=True),
        _Check(pool, no_test_image_in_pool, (pool,), deps=tasks, blocking=True),
        _Check(pool, no_identifier_exposed, blocking=True),
        _Check("html_report", no_identifier_exposed, blocking=True),
        _Check(pool, pool_can_train, (pool, images, labels)),
        _Check("pool_labels", labels_are_balanced, (pool,)),
    ]


def left_and_right_agree(of: Subject) -> dg.AssetCheckResult:
    """Descriptions that differ in LEFT and RIGHT alone share their groups (for the reviewer)."""
    pairs = of.study_groups().left_right_disagreements()
    return warning(not pairs, describe_disagreements(pairs), pairs=len(pairs))


def label_space_unchanged(of: Subject, labels: pa.Table) -> dg.AssetCheckResult:
    """The label columns are the recipe's, in its order, and hold 0, 1 or nothing."""
    columns, wanted = labels.column_names[2:], of.recipe.labels.names
    return dg.AssetCheckResult(
        passed=is_label_space(labels, of.recipe.labels),
        description=f"{len(columns)} label columns; the recipe has {len(wanted)}",
        metadata={"columns": ", ".join(columns), "recipe": ", ".join(wanted)},
    )


def few_records_unmapped(of: Subject, unmapped: pa.Table, index: pa.Table) -> dg.AssetCheckResult:
    """At most the share `labels.largest_unmapped_share` of the records have a description that is not reviewed yet."""
    share = (pc.sum(unmapped["images"]).as_py() or 0) / max(1, index.num_rows)
    found = f"{share:.1%} of the records have one of {unmapped.num_rows} descriptions that are not mapped yet"
    return warning(share <= of.recipe.labels.largest_unmapped_share, found)


def mapping_rows_are_carried(of: Subject, published: pa.Table) -> dg.AssetCheckResult:
    """Every description and study of the mapping occurs in at least one record, except those that Table A1 prints."""
    from pipeline.labels.worklist import unused_mappings

    unused = unused_mappings(of.study_groups(), with_rare_descriptions(of.store.private, published)[0])
    unused += reviewed_studies(of.mapping, of.recipe.labels).unused(pc.unique(published["study"]).to_pylist())
    more = f" and {len(unused) - NAMED} more" if len(unused) > NAMED else ""
    found = (
        f"no record has the study_description or study of {'; '.join(unused[:NAMED])}{more}: is it misspelt, or was "
        "the file saved in another encoding?"
    )
    return warning(
        not unused,
        found if unused else "every description and study of the mapping occurs, or Table A1 prints it",
        rows=len(unused),
    )


def cache_intact(of: Subject, images: pa.Table) -> dg.AssetCheckResult:
    """A sample of the images, drawn anew in each run, has the pixels that their digests name."""
    report = check_sample(of.cache, images, of.run_id)
    found = len(report.damaged)
    return dg.AssetCheckResult(
        passed=not found,
        description=f"{found} of {report.images} images differ: remove the folder {of.cache.name} below images/ "
        "in the store and run `ingest`, which makes it again."
        if found
        else f"{report.images} images of {report.shards} shards compared",
        metadata={"images": report.images, "shards": report.shards, "damaged": ", ".join(report.damaged) or "none"},
    )


def no_text_kept_whole(of: Subject, images: pa.Table, index: pa.Table) -> dg.AssetCheckResult:
    """No image is kept whole whose header says that text is burned in (for a person to look)."""
    from pipeline.archive.crop_sheet import uncropped_with_text

    files, stated = uncropped_with_text(images, index), pc.sum(index["burned_in"]).as_py() or 0
    found = (
        f"{len(files)} files state BurnedInAnnotation YES and are kept whole: look at them before you pass images on "
        "(`python -m pipeline.archive locate ID` prints where they are)."
    )
    return warning(
        not files,
        found if files else f"{stated} records state BurnedInAnnotation YES; all their images are cut",
        stated=stated,
        **{"kept whole": len(files), "files": ", ".join(files[:NAMED]) or "none"},
    )


def no_near_duplicates(of: Subject, similar: pa.Table, images: pa.Table) -> dg.AssetCheckResult:
    """No two patients have images that are nearly the same, except pairs that a reviewer has cleared."""
    from pipeline.cohort.leak_review import cached_pixels, review_hint, uncleared
    from pipeline.cohort.leaks import archive_leaks

    alike = uncleared(of.store, archive_leaks(similar, images))
    pixels = cached_pixels(images, of.cache)
    hint = f"; {review_hint(alike, of.recipe.name, 'archive')}" if alike else ""
    return warning(
        not alike,
        f"{len(alike)} pairs of images of different patients are nearly the same; their patients are on one side of "
        f"the split{hint}",
        pairs=len(alike),
        **review_metadata(of.store, of.recipe, "archive", alike, pixels, pixels),
    )


def no_image_in_two_splits(of: Subject, rows: pa.Table) -> dg.AssetCheckResult:
    """No two images in different splits are nearly the same, except pairs that a reviewer has cleared."""
    from pipeline.cohort.leak_review import review_hint, task_pixels, uncleared
    from pipeline.cohort.leaks import split_leaks

    task = of.asset.removesuffix("_images")
    found, name = uncleared(of.store, split_leaks(task, rows)), f"{task}_splits"
    pixels = task_pixels(lambda: rows, of.recipe.images)
    hint = f": {review_hint(found, of.recipe.name, name)}" if found else ""
    return dg.AssetCheckResult(
        passed=not found,
        description=f"Task {task}: {len(found)} pairs of images in different splits are nearly the same{hint}.",
        metadata={"pairs": len(found), **review_metadata(of.store, of.recipe, name, found, pixels, pixels)},
    )


def no_patient_on_both_sides(of: Subject, pool: pa.Table, index: pa.Table) -> dg.AssetCheckResult:
    """No patient, study or series has images in train and in val."""
    patients, torn = patients_on_both_sides(pool), studies_on_both_sides(pool, index)
    return dg.AssetCheckResult(
        passed=not patients and not torn,
        description=f"{len(patients)} patients and {len(torn)} studies or series have images in train and in val",
        metadata={"patients": ", ".join(patients) or "none", "studies and series": ", ".join(torn) or "none"},
    )


def no_test_image_in_pool(of: Subject, pool: pa.Table) -> dg.AssetCheckResult:
    """No patient and no image of a task's test set is in the pool, equal or nearly equal."""
    from pipeline.tasks.pool_overlap import pool_overlaps

    overlaps = pool_overlaps(pool, of.recipe, of.archive.key(of.store.private), earlier=of.store)
    metadata: dict[str, Any] = {}
    for task, overlap in overlaps.items():
        pairs = near_pool_metadata(of.store, of.recipe, task, overlap.near, pool)
        metadata |= {f"shared with {task}": overlap.count} | {f"{name}: {task}": pairs[name] for name in pairs}
    shared = sum(overlap.count for overlap in overlaps.values())
    hints = "".join(near_pool_hint(overlap.near, of.recipe, task) for task, overlap in overlaps.items())
    return dg.AssetCheckResult(
        passed=not shared,
        description=f"{shared} test images share patient or pixels with the pool.{hints}",
        metadata=metadata,
    )


def pool_can_train(of: Subject, pool: pa.Table, images: pa.Table, labels: pa.Table) -> dg.AssetCheckResult:
    """The pool has training and validation images; without them training refuses to start."""
    counts = {f"images.{side}": pool["split"].to_pylist().count(side) for side in ("train", "val")}
    shortage = pool_shortage(pool, images, labels)
    enough = f"{counts['images.train']} training and {counts['images.val']} validation images"
    return warning(not shortage, shortage or enough, **counts)


def labels_are_balanced(of: Subject, pool: pa.Table) -> dg.AssetCheckResult:
    """Enough training patients, and a validation patient, have each label, and as many lack it."""
    rare = rare_labels(label_balance(pool, of.recipe.labels.names))
    found = f"too few patients with or without: {', '.join(rare)}" if rare else "every label has enough"
    return warning(not rare, found, labels=len(rare))


def no_identifier_exposed(of: Subject) -> dg.AssetCheckResult:
    """No identifier of sampled archive files, tasks' patients or new images is in a table, report or log."""
    from pipeline.archive.identifier_scan import scan_for_identifiers, shareable_paths
    from pipeline.tasks.manifests import recipe_texts

    if not (of.store.private / "scan.parquet").is_file():
        nothing = "nothing to look for: no archive has been read into this store"
        return dg.AssetCheckResult(passed=True, description=nothing, metadata={"files sampled": 0})
    homes = [Path(home) for home in [os.environ.get("DAGSTER_HOME")] if home]
    paths = shareable_paths(of.store, homes)
    result = scan_for_identifiers(of.archive.folder, of.store.private, paths, recipe_texts(of.recipe))
    return dg.AssetCheckResult(
        passed=not result.findings,
        description=f"searched for {result.patterns} spellings of identifiers of {result.read} files; "
        f"{len(result.findings)} found",
        metadata={
            "files sampled": result.files,
            "of them read": result.read,
            "spellings looked for": result.patterns,
            "exposed": "; ".join(f"{one.kind} in {one.file}" for one in result.findings) or "nothing",
        },
    )
