"""From records to the images every method trains on.

Belongs here: the assets of the group `images`, and the pool of the group `cohort`. Not here: decoding and caching
(`pipeline.archive`, `pipeline.images`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import leaks, privacy
from assets.catalog import COHORT
from assets.failures import HOOKS
from assets.labels import MappingVersion
from assets.pictures import picture_url
from assets.step import step
from assets.tables import counts_table, markdown_table, table_metadata, table_version
from pipeline import code_versions
from pipeline.files import read_table
from pipeline.locks import archive_lock, tables_lock
from pipeline.privacy.identity import number_pseudonym
from pipeline.recipe import Recipe
from pipeline.store import Store
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.archive.cache_builder import Cache
    from pipeline.cohort.leaks import Leak

GROUP = "images"
SAMPLES = 24
"""Images on the crop sheet."""
NAMED_FILES = 20
"""Files that a check names at most."""
SAMPLED_SHARDS = 4
"""Shards of the cache that are looked into in each run."""
SAMPLED_IMAGES = 1000
"""Images there, at most, whose pixels are compared with their digests."""
CUT_BY = {
    "regions": "the ultrasound regions that the header names",
    "detected": "found in the pixels, since the header does not say",
    "whole": "nothing was cut away",
}
"""How the insonated area of an image was found."""
FEWEST_PATIENTS = 5
"""Of the training split, with and without a label: fewer teach who they are, not what the label means."""


def image_assets(recipe: Recipe, mapping: MappingVersion) -> list[dg.AssetsDefinition]:
    """`image_cache` with `rejected_frames` and `near_duplicates`, and `pretraining_pool` with `pool_labels`."""
    return [_image_cache(recipe), _pretraining_pool(recipe, mapping)]


def _image_cache(recipe: Recipe) -> dg.AssetsDefinition:
    size = f"{recipe.images.height}x{recipe.images.width}"
    archive = recipe.archive
    of_archive = f"{archive.frames_per_cine}-{archive.b_mode_only}-{'-'.join(archive.modalities)}"
    version = f"{code_versions.IMAGES}-{size}-{of_archive}"
    tables = {
        "image_cache": f"One row per image: a frame's insonated area as grey pixels of {size}, in Parquet shards.",
        "rejected_frames": "One row per selected frame that became no image, with its reason.",
        "near_duplicates": "One row per pair of images of different patients that are nearly the same.",
    }

    @dg.multi_asset(
        hooks=HOOKS,
        specs=[
            dg.AssetSpec(
                name,
                deps=["dicom_index"],
                description=says,
                code_version=version,
                group_name=GROUP,
                kinds={"parquet"},
            )
            for name, says in tables.items()
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "no_frame_lost", asset="image_cache", blocking=True, description="frames selected = images + rejected"
            ),
            dg.AssetCheckSpec(
                "cache_intact",
                asset="image_cache",
                blocking=True,
                description=f"A sample of {SAMPLED_IMAGES} images has the pixels that their digests name.",
            ),
            dg.AssetCheckSpec(
                "no_text_kept_whole",
                asset="image_cache",
                description="No image is kept whole whose header says that text is burned in (for a person to look).",
            ),
            dg.AssetCheckSpec(
                "no_near_duplicates",
                asset="near_duplicates",
                description="No two patients have images that are nearly the same, other than a reviewer has cleared.",
            ),
        ],
        name="cache_images",
    )
    def cache_images(
        context: dg.AssetExecutionContext, store: StoreFolder, archive: Archive, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.archive.cache_builder import build_cache
        from pipeline.cohort.leaks import archive_leaks, archive_pairs
        from pipeline.tables import DICOM_INDEX, IMAGES, NEAR_DUPLICATES, REJECTED_FRAMES

        with step(context, tracking, recipe, {"size": size, **recipe.archive.model_dump()}) as here:
            place = store.open()
            with archive_lock(place, here.log):
                index = DICOM_INDEX.read(place.tables)
                key = archive.key(place.private)
                cache = build_cache(
                    index, archive.folder, place.private, key, place.images, recipe.images, recipe.archive, here.log
                )
                images, rejected = _apart(cache, place)
                similar = archive_pairs(images, cache.folder)
                sheet = _crop_sheet(images, index, archive.folder, place, cache.folder, recipe.archive.frames_per_cine)
                tables = place.experiment(recipe.name).tables
                IMAGES.write(tables, images, recipe)
                REJECTED_FRAMES.write(tables, rejected)
                NEAR_DUPLICATES.write(tables, similar)
            cut = {row["values"]: row["counts"] for row in images["cropped_by"].value_counts().to_pylist()}
            counts = {"frames": cache.frames, "images": images.num_rows, "rejected": rejected.num_rows}
            yield here.made(
                "image_cache",
                table_version(images),
                {
                    **table_metadata(IMAGES, images),
                    **counts,
                    "files decoded": cache.decoded,
                    "cropped by": counts_table("cut by", cut, CUT_BY),
                    "folder": cache.folder.name,
                    "before and after": dg.MetadataValue.md(f"![before and after]({picture_url(sheet)})"),
                },
                metrics=counts,
                files=[sheet],
                checks=[
                    dg.AssetCheckResult(
                        check_name="no_frame_lost",
                        passed=counts["frames"] == counts["images"] + counts["rejected"],
                        description="{frames} frames: {images} images, {rejected} rejected".format(**counts),
                        metadata=counts,
                    ),
                    _cache_intact(cache.folder, images, context.run_id),
                    _no_text_kept_whole(images, index),
                ],
            )
            yield here.made("rejected_frames", table_version(rejected), table_metadata(REJECTED_FRAMES, rejected))
            alike = leaks.uncleared(place, archive_leaks(similar, images))
            cached = leaks.cached_pixels(images, cache.folder)
            sheet_of_pairs = leaks.shown(place, recipe, "archive", alike, cached, cached)
            yield here.made(
                "near_duplicates",
                table_version(similar),
                {**table_metadata(NEAR_DUPLICATES, similar), **sheet_of_pairs},
                metrics={"near_duplicates": similar.num_rows},
                checks=[
                    dg.AssetCheckResult(
                        check_name="no_near_duplicates",
                        passed=not alike,
                        severity=dg.AssetCheckSeverity.WARN,
                        description=f"{len(alike)} pairs of images of different patients are nearly the same; their "
                        "patients are on one side of the split"
                        + (f"; {leaks.told(alike, recipe, 'archive')}" if alike else ""),
                        metadata={"pairs": len(alike)},
                    )
                ],
            )

    return cache_images


def _apart(cache: "Cache", place: Store) -> "tuple[pa.Table, pa.Table]":
    """The cache's images without those that would link both sides of the split as it stood; and all rejections.

    The split and the images, of every recipe, are those of the last run: a patient keeps its side, an image that was
    there stays.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.cohort.patient_links import across_split, exclude_images, tied_patients
    from pipeline.cohort.splits import known_sides, sides_of
    from pipeline.dicom.rejections import Reason, Rejection, rejection_table
    from pipeline.tables import DICOM_INDEX, IMAGES, REJECTED_FRAMES, read_of_every_recipe

    sides = sides_of(known_sides(place))
    earlier = read_of_every_recipe(IMAGES, place)
    index = DICOM_INDEX.read(place.tables)
    linking = across_split(cache.images, sides, earlier, tied_patients(index))
    if not linking.num_rows:
        return cache.images, cache.rejected
    names = zip(linking["sop_instance"].to_pylist(), linking["frame"].to_pylist(), strict=True)
    files = index["file_id"].take(pc.index_in(linking["sop_instance"], value_set=index["sop_instance"])).to_pylist()
    rejection = Rejection(Reason.DUPLICATE_ACROSS_SPLIT, "another patient's image with the same pixels was there first")
    rejected = rejection_table(
        "frame", ((f"{file}:{frame}", rejection) for file, (_, frame) in zip(files, names, strict=True))
    )
    images = exclude_images(cache.images, linking)
    both = pa.concat_tables([cache.rejected, rejected.cast(REJECTED_FRAMES.schema)])
    return images, both.take(pc.sort_indices(both["id"]))


def _crop_sheet(images: "pa.Table", index: "pa.Table", archive: str, place: Store, folder: Path, per_cine: int) -> Path:
    """The picture that shows what was cut away, beside the cache; what lies outside is made illegible."""
    from pipeline.archive.cache_builder import crop_previews
    from pipeline.archive.crop_sheet import crop_sheet

    sheet = folder / "crop_sheet.png"
    crop_sheet(crop_previews(images, index, archive, place.private, per_cine, SAMPLES), sheet)
    return sheet


def _contact_sheet(pool: "pa.Table", recipe: Recipe, place: Store) -> Path:
    """The picture that shows the pool by the labels of its first two sources, beside its table."""
    from pipeline.cohort.contact_sheet import contact_sheet
    from pipeline.images.cache import cache_folder

    folder = cache_folder(place.images, recipe.images, recipe.archive)
    rows, *others = (source.names for source in recipe.labels.sources)
    sheet = place.experiment(recipe.name).tables / "contact_sheet.png"
    contact_sheet(pool, folder, rows, others[0] if others else (), sheet)
    return sheet


def _no_text_kept_whole(images: "pa.Table", index: "pa.Table") -> dg.AssetCheckResult:
    """Such an image may show a name: a person looks at the file, which no sheet of pictures shows."""
    import pyarrow.compute as pc

    from pipeline.archive.cache_builder import uncropped_with_text

    files, stated = uncropped_with_text(images, index), pc.sum(index["burned_in"]).as_py() or 0
    return dg.AssetCheckResult(
        check_name="no_text_kept_whole",
        passed=not files,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(files)} files state BurnedInAnnotation YES and are kept whole: look at them before you pass "
        "images on (`python -m pipeline.archive locate ID` prints where they are)."
        if files
        else f"{stated} records state BurnedInAnnotation YES; all their images are cut",
        metadata={"stated": stated, "kept whole": len(files), "files": ", ".join(files[:NAMED_FILES]) or "none"},
    )


def _cache_intact(folder: Path, images: "pa.Table", run_id: str) -> dg.AssetCheckResult:
    """Other shards in every run: what rots unseen is found after some."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.images.cache import damaged_images

    draws, shards = Random(run_id), sorted(set(images["shard"].to_pylist()))
    sample = draws.sample(shards, min(SAMPLED_SHARDS, len(shards)))
    rows = images.filter(pc.is_in(images["shard"], value_set=pa.array(sample, pa.string())))
    chosen = sorted(draws.sample(range(rows.num_rows), min(SAMPLED_IMAGES, rows.num_rows)))
    rows = rows.take(pa.array(chosen, pa.int64()))
    damaged = damaged_images(folder, rows)
    return dg.AssetCheckResult(
        check_name="cache_intact",
        passed=not damaged,
        description=f"{len(damaged)} of {rows.num_rows} images differ: remove the folder {folder.name} below images/ "
        "in the store and run `ingest`, which makes it again."
        if damaged
        else f"{rows.num_rows} images of {len(sample)} shards looked at",
        metadata={"images": rows.num_rows, "shards": len(sample), "damaged": ", ".join(damaged) or "none"},
    )


def _pretraining_pool(recipe: Recipe, mapping: MappingVersion) -> dg.AssetsDefinition:
    blocking = {
        "no_patient_on_both_sides": "No patient, study or series has images in train and in val.",
        "no_test_image_in_pool": "No patient and no image of a task's test set is in the pool, equal or nearly equal.",
    }
    size = f"{recipe.images.height}x{recipe.images.width}"
    version = f"{code_versions.COHORT}-{recipe.labels.missing}-{size}"

    @dg.multi_asset(
        hooks=HOOKS,
        specs=[
            dg.AssetSpec(
                "pretraining_pool",
                deps=[
                    "image_cache",
                    "labelled_records",
                    "patient_splits",
                    "quarantine",
                    *(f"{task}_images" for task in recipe.downstream.tasks),
                ],
                description="One row per image that every pretraining method trains or validates on, with its split. "
                "Why others are not in it: quarantine, labelled_records.",
                code_version=f"{version}-{mapping.membership}",
                group_name=COHORT,
                kinds={"parquet"},
            ),
            dg.AssetSpec(
                "pool_labels",
                deps=["pretraining_pool", "weak_labels"],
                description="The labels of the pool's images, as columns of its table, for the methods that learn "
                "from labels. New labels for the same images leave the encoders of other methods unchanged.",
                code_version=f"{version}-{mapping.meaning}",
                group_name=COHORT,
                kinds={"parquet"},
            ),
        ],
        check_specs=[
            *(
                dg.AssetCheckSpec(name, asset="pretraining_pool", blocking=True, description=says)
                for name, says in blocking.items()
            ),
            privacy.spec("pretraining_pool"),
            dg.AssetCheckSpec(
                "pool_can_train",
                asset="pretraining_pool",
                description="The pool has training and validation images; without them training refuses to start.",
            ),
            dg.AssetCheckSpec(
                "labels_are_balanced",
                asset="pool_labels",
                description=f"Each label is carried, and lacked, by at least {FEWEST_PATIENTS} training patients and "
                "one validation patient.",
            ),
        ],
        name="pool_images",
    )
    def pool(
        context: dg.AssetExecutionContext, store: StoreFolder, archive: Archive, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.cohort.pool import (
            label_balance,
            patients_on_both_sides,
            pool_shortage,
            pretraining_pool,
            studies_on_both_sides,
        )
        from pipeline.privacy.training_exposure import record_training_set
        from pipeline.tables import (
            DICOM_INDEX,
            IMAGES,
            PATIENT_SPLITS,
            image_digest,
            label_digest,
            pretraining_pool_table,
            weak_labels_table,
        )

        table = pretraining_pool_table(recipe.labels.names)
        with step(context, tracking, recipe, recipe.labels.model_dump()) as here:
            place = store.open()
            tables = place.experiment(recipe.name).tables
            with tables_lock(place, here.log):
                images = IMAGES.read(tables, recipe)
                labels = weak_labels_table(recipe.labels.names).read(tables, recipe)
                rows = pretraining_pool(images, labels, PATIENT_SPLITS.read(place.tables), recipe.labels)
                table.write(tables, rows, recipe)
                counts = {f"images.{side}": rows["split"].to_pylist().count(side) for side in ("train", "val")}
                leaking, torn = (
                    patients_on_both_sides(rows),
                    studies_on_both_sides(rows, DICOM_INDEX.read(place.tables)),
                )
                shared = shared_with_tests(rows, recipe, place, archive.key(place.private))
                sides = _sides_by_name(rows, place)
                record_training_set(place.private, image_digest(rows), sides, sides)
                sheet = _contact_sheet(rows, recipe, place)
            yield here.made(
                "pretraining_pool",
                image_digest(rows)[:16],
                {
                    **table_metadata(table, rows),
                    **counts,
                    "image digest": image_digest(rows),
                    "by label": dg.MetadataValue.md(f"![images by label]({picture_url(sheet)})"),
                },
                metrics=counts,
                files=[sheet],
                checks=[
                    dg.AssetCheckResult(
                        check_name="no_patient_on_both_sides",
                        passed=not leaking and not torn,
                        description=f"{len(leaking)} patients and {len(torn)} studies or series have images in train "
                        "and in val",
                        metadata={
                            "patients": ", ".join(leaking) or "none",
                            "studies and series": ", ".join(torn) or "none",
                        },
                    ),
                    privacy.no_identifier_exposed(archive.folder, place, recipe),
                    _can_train(pool_shortage(rows, images, labels), counts),
                    dg.AssetCheckResult(
                        check_name="no_test_image_in_pool",
                        passed=not any(count for count, _ in shared.values()),
                        description=f"{sum(count for count, _ in shared.values())} test images share patient or pixels "
                        "with the pool."
                        + "".join(nearly(near, recipe, f"{task}_pool") for task, (_, near) in shared.items()),
                        metadata=_of_tasks(place, recipe, shared, rows),
                    ),
                ],
            )
            balance = label_balance(rows, recipe.labels.names)
            yield here.made(
                "pool_labels",
                label_digest(rows)[:16],
                {
                    "dagster/row_count": rows.num_rows,
                    "label digest": label_digest(rows),
                    "patients per label": dg.MetadataValue.md(markdown_table(balance)),
                },
                checks=[_balanced(balance)],
            )

    return pool


def _can_train(shortage: str, counts: Mapping[str, int]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="pool_can_train",
        passed=not shortage,
        severity=dg.AssetCheckSeverity.WARN,
        description=shortage or f"{counts['images.train']} training and {counts['images.val']} validation images",
        metadata=dict(counts),
    )


def _balanced(balance: "pa.Table") -> dg.AssetCheckResult:
    rare = [
        row["label"]
        for row in balance.to_pylist()
        if min(row["train with"], row["train without"]) < FEWEST_PATIENTS
        or not row["val with"]
        or not row["val without"]
    ]
    return dg.AssetCheckResult(
        check_name="labels_are_balanced",
        passed=not rare,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"too few patients with or without: {', '.join(rare)}" if rare else "every label has enough",
        metadata={"labels": len(rare)},
    )


def shared_with_tests(
    pool: "pa.Table", recipe: Recipe, store: Store, key: bytes
) -> "dict[str, tuple[int, list[Leak]]]":
    """Per task: how many test images share their patient or their pixels with the pool, and which nearly.

    Of a task whose images are not in the store yet only the patients are compared: fine-tuning checks again. Patients
    are compared by all names under which the archive knows them, since a labelled set states no issuer.
    """
    from pipeline.tasks.manifests import held_out_patients

    names = names_of(store, pool["patient"].to_pylist())
    shared = {}
    for task, settings in recipe.downstream.tasks.items():
        path = store.experiment(recipe.name).task_images(task)
        if path.exists():
            images = read_table(path)
            near = leaks.uncleared(store, leaks.near_pool(store, recipe, task, images, pool))
            shared[task] = count_shared(pool, images, near, names), near
        else:
            patients = held_out_patients(task, settings)
            shared[task] = sum(number_pseudonym(key, patient) in names for patient in patients), []
    return shared


def names_of(store: Store, patients: Collection[str]) -> frozenset[str]:
    """All pseudonyms under which the archive knows `patients`, as far as it has been read."""
    from pipeline.cohort.aliases import patient_aliases
    from pipeline.tables import DICOM_INDEX

    if not DICOM_INDEX.path(store.tables).exists():
        return frozenset(patients)
    names = patient_aliases(store.private, DICOM_INDEX.read(store.tables), patients)
    return frozenset().union(*names.values())


def _sides_by_name(pool: "pa.Table", store: Store) -> dict[str, str]:
    """The side of each patient of the pool, and of its other names; of a name of two patients, train if one is."""
    from pipeline.cohort.aliases import patient_aliases
    from pipeline.tables import DICOM_INDEX

    own = dict(zip(pool["patient"].to_pylist(), pool["split"].to_pylist(), strict=True))
    names = patient_aliases(store.private, DICOM_INDEX.read(store.tables), own)
    others = {
        name: side
        for wanted in ("val", "train")
        for patient, side in own.items()
        if side == wanted
        for name in names[patient]
    }
    return others | own


def _of_tasks(
    place: Store, recipe: Recipe, shared: "Mapping[str, tuple[int, list[Leak]]]", pool: "pa.Table"
) -> dict[str, Any]:
    """Each task's count of shared test images, and the pairs of nearly equal ones side by side."""
    metadata: dict[str, Any] = {}
    for task, (count, near) in shared.items():
        said = show_near_pool(place, recipe, task, near, pool)
        metadata |= {f"shared with {task}": count} | {f"{name}: {task}": value for name, value in said.items()}
    return metadata


def show_near_pool(store: Store, recipe: Recipe, task: str, near: "Sequence[Leak]", pool: "pa.Table") -> dict[str, Any]:
    """The worklist and the picture of a task's test images that are nearly in the pool, as metadata."""
    from pipeline.images.cache import cache_folder

    folder = cache_folder(store.images, recipe.images, recipe.archive)
    path = store.experiment(recipe.name).task_images(task)  # which is there if there are pairs
    images = leaks.task_pixels(lambda: read_table(path), recipe)
    return leaks.shown(store, recipe, f"{task}_pool", near, images, leaks.cached_pixels(pool, folder))


def count_shared(
    pool: "pa.Table", task_images: "pa.Table", near: "Collection[Leak]", seen: Collection[str] = ()
) -> int:
    """Test images of a task whose patient or pixels are in the pool, `near` or equal, or whose patient was `seen`."""
    patients = {*pool["patient"].to_pylist(), *seen}
    pixels, rows = set(pool["source_digest"].to_pylist()), {leak.row for leak in near}
    columns = task_images.select(["patient", "source_digest", "split"]).to_pylist()
    return sum(
        row["split"] == "test" and (row["patient"] in patients or row["source_digest"] in pixels or number in rows)
        for number, row in enumerate(columns)
    )


def nearly(near: "Sequence[Leak]", recipe: Recipe, name: str) -> str:
    """What a sentence on shared images says of those that are nearly in the pool; empty if none is."""
    return f" {len({leak.row for leak in near})} of them nearly, {leaks.told(near, recipe, name)}." if near else ""
