"""Test images of tasks whose patient or pixels are in the pretraining pool.

Not here: finding near-duplicates (`pipeline.cohort.leaks`).
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.cohort.leak_review import uncleared
from pipeline.cohort.leaks import Leak, pool_leaks
from pipeline.cohort.near_duplicate_score import MIN_SIMILARITY
from pipeline.cohort.patient_aliases import known_names
from pipeline.files import digest, read_json, read_table, write_json
from pipeline.images.cache import cache_folder
from pipeline.privacy.identity import number_pseudonym
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import image_digest
from pipeline.tasks.manifests import held_out_patients


@dataclass(frozen=True)
class Overlap:
    """How many test images of a task are in the pool, and the pairs of those that are nearly in it."""

    count: int
    near: list[Leak] = field(default_factory=list)


def pool_overlaps(pool: pa.Table, recipe: Recipe, key: bytes, earlier: Store) -> dict[str, Overlap]:
    """The overlap of each task of the recipe with the pool.

    Of a task whose images `earlier` runs have not prepared, only the patients are compared; fine-tuning checks again.
    Patients are compared by all their names in the archive, since a labelled set states no issuer.
    """
    names = known_names(pool["patient"].to_pylist(), earlier)
    found = {}
    for task, settings in recipe.downstream.tasks.items():
        path = earlier.experiment(recipe.name).task_images(task)
        if path.exists():
            found[task] = pool_overlap(pool, recipe, earlier, task, read_table(path), names)
        else:
            patients = held_out_patients(task, settings)
            found[task] = Overlap(sum(number_pseudonym(key, patient) in names for patient in patients))
    return found


def pool_overlap(
    pool: pa.Table, recipe: Recipe, store: Store, task: str, images: pa.Table, patients: Collection[str]
) -> Overlap:
    """The overlap of a task's `images` with the pool; a test image of one of `patients` counts, too."""
    near = uncleared(store, _near_pool(store, recipe, task, images, pool))
    return Overlap(count_shared(pool, images, near, patients), near)


def count_shared(pool: pa.Table, task_images: pa.Table, near: Collection[Leak], patients: Collection[str] = ()) -> int:
    """Test images whose patient or pixels are in the pool, equal or `near`, or whose patient is one of `patients`."""
    people = {*pool["patient"].to_pylist(), *patients}
    pixels, rows = set(pool["source_digest"].to_pylist()), {leak.row for leak in near}
    columns = task_images.select(["patient", "source_digest", "split"]).to_pylist()
    return sum(
        row["split"] == "test" and (row["patient"] in people or row["source_digest"] in pixels or number in rows)
        for number, row in enumerate(columns)
    )


def _near_pool(store: Store, recipe: Recipe, task: str, images: pa.Table, pool: pa.Table) -> list[Leak]:
    """The near-duplicates of a task's test images in the pool; kept beside the task's images until one changes."""
    kept = store.experiment(recipe.name).task_images(task).with_suffix(".near_pool.json")
    sides = images["image_digest"].to_pylist(), images["split"].to_pylist()
    key = digest(1, MIN_SIMILARITY, *sides, image_digest(pool))
    known = read_json(kept) if kept.is_file() else {}
    if known.get("key") == key:
        return [Leak(**leak) for leak in known["pairs"]]
    found = pool_leaks(task, images, pool, cache_folder(store.images, recipe.images, recipe.archive))
    write_json(kept, {"key": key, "pairs": [vars(leak) for leak in found]})
    return found
