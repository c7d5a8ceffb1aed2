"""The worklist of probes whose shape is unknown. Not here: what their names mean (`pipeline.labels`)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.catalog import REVIEW
from assets.failures import HOOKS
from assets.labels import EXAMPLES, ILLUSTRATED, MappingVersion
from assets.pictures import example_urls
from assets.step import Context, Materializations, step
from assets.tables import markdown_table, size_and_columns, table_version
from assets.worklists import to_fill_in, write_pictures
from pipeline import code_versions
from pipeline.cohort.patient_links import canonical_patients, tied_patients
from pipeline.files import write_text
from pipeline.images.cache import cache_folder, load_pixels
from pipeline.labels.probe_pictures import PICTURES, Suggestion, picture_of, suggestion_of
from pipeline.labels.probe_tables import Probes, probes_for
from pipeline.labels.probe_worklist import ProbeName, facts_of, unknown_names, unmapped_probes, worklist_csv
from pipeline.locks import archive_lock, tables_lock
from pipeline.recipe import Recipe
from pipeline.recipe.labels import SHAPES
from pipeline.store import Store
from pipeline.tables import UNMAPPED_PROBES
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

WORKLIST = "unmapped_probes.csv"
MOST_LOOKED_AT = 100
"""Probes whose pictures are looked at, the most frequent ones: a file is opened for each of their examples."""
TO_FILL_IN = (
    "Copy `unmapped_probes.csv` from the same folder into the folder that SONOTAG_STUDY_GROUPS names.",
    "Correct `shape`, and delete the question mark.",
    "Press *Reload definitions* (Lineage), and launch `ingest` again.",
)
ABOUT = (
    "Probes whose shape is unknown.",
    f"Shapes to choose from: {'; '.join(f'{shape} ({meaning})' for shape, meaning in SHAPES.items())}.",
)


def unmapped_probes_asset(recipe: Recipe, mapping: Path, version: MappingVersion) -> dg.AssetsDefinition:
    """`unmapped_probes`: the worklist as a table, and in the private folder as a CSV to fill in."""

    @dg.asset(
        hooks=HOOKS,
        name="unmapped_probes",
        description="The worklist of probes: one row per name whose shape neither the makers' conventions nor the "
        "user's rows state, with counts, images and a suggested shape, which is not a review.",
        code_version=f"{code_versions.LABELS}-{code_versions.SUGGESTIONS}{version.probes}",
        group_name=REVIEW,
        kinds={"parquet", "csv"},
    )
    def unmapped(
        context: Context,
        store: StoreFolder,
        tracking: Tracking,
        archive: Archive,
        dicom_index: pa.Table,
        image_cache: pa.Table,
    ) -> Materializations:
        with step(context, store, tracking, recipe) as here:
            holding = here.holding(archive_lock(here.store, here.log), dicom_index, image_cache)
            with holding as (index, images), tables_lock(here.store, here.log):
                probes = probes_for(mapping, recipe.labels)
                unknown = unknown_names(index, recipe.labels, probes)
                examples = _examples(index, unknown, images)
                shown = _suggestions(here.store, recipe, archive.folder, index, examples)
                rows, private = _worklist(here.store, recipe, index, unknown, probes, shown)
                UNMAPPED_PROBES.write(here.store.experiment(recipe.name).tables, rows)
                _write_page(here.store, recipe, archive, private, _by_instance(index, unknown), index, images)
            pictures = _illustrated(here.store, recipe, rows, examples)
            yield here.made(
                "unmapped_probes",
                table_version(rows),
                {
                    **size_and_columns(UNMAPPED_PROBES, rows),
                    "for the reviewer": dg.MetadataValue.md(pictures),
                    "to fill in": to_fill_in("unmapped_probes", recipe, TO_FILL_IN),
                    "shapes to choose from": ", ".join(SHAPES),
                },
                metrics={"unmapped_probes": rows.num_rows},
            )

    return unmapped


def _by_instance(index: pa.Table, unknown: Sequence[ProbeName | None]) -> dict[str, ProbeName]:
    """The unknown probe of each record (sop_instance) that has one."""
    names = zip(index["sop_instance"].to_pylist(), unknown, strict=True)
    return {instance: name for instance, name in names if name is not None}


def _examples(index: pa.Table, unknown: Sequence[ProbeName | None], images: pa.Table) -> Mapping[ProbeName, pa.Table]:
    """Images (IMAGES) of different patients for each of the most frequent unknown probes."""
    from pipeline.labels.worklist import example_images

    named = _by_instance(index, unknown)
    frequent = [name for name, _ in Counter(named.values()).most_common(MOST_LOOKED_AT)]
    return example_images(named, images, frequent, PICTURES)


def _suggestions(
    store: Store, recipe: Recipe, archive: str, index: pa.Table, examples: Mapping[ProbeName, pa.Table]
) -> dict[ProbeName, Suggestion]:
    """What the examples of each probe suggest; headers are read only of probes with a name, which can be mapped."""
    from pipeline.archive.listing import known_files
    from pipeline.archive.region_faces import stated_faces

    if not examples:
        return {}
    named = pa.chunked_array(
        [rows["sop_instance"].combine_chunks() for probe, rows in examples.items() if probe.name], pa.string()
    )
    records = index.filter(pc.is_in(index["sop_instance"], value_set=named))
    faces = stated_faces(records, known_files(store.private), archive)
    folder = cache_folder(store.images, recipe.images, recipe.archive)
    pixels = iter(load_pixels(folder, pa.concat_tables(examples.values())))
    shown = {
        probe: suggestion_of(
            [picture_of(next(pixels), row["cropped_by"], faces.get(row["sop_instance"])) for row in rows.to_pylist()]
        )
        for probe, rows in examples.items()
    }
    return {probe: found for probe, found in shown.items() if found}


def _worklist(
    store: Store,
    recipe: Recipe,
    index: pa.Table,
    unknown: Sequence[ProbeName | None],
    probes: Probes,
    shown: Mapping[ProbeName, Suggestion],
) -> tuple[pa.Table, pa.Table]:
    """The worklist as it may be published, and the whole one, which is written as a private CSV."""
    private = unmapped_probes(index, unknown, probes, shown=shown)
    write_text(store.private_of(recipe.name) / WORKLIST, worklist_csv(private))
    aliases = canonical_patients(tied_patients(index))
    return unmapped_probes(index, unknown, probes, recipe.archive.description_patients, aliases, shown), private


def _write_page(
    store: Store,
    recipe: Recipe,
    archive: Archive,
    private: pa.Table,
    name_of: Mapping[str, ProbeName],
    index: pa.Table,
    images: pa.Table,
) -> None:
    """The page of pictures of all names that can be mapped."""
    rows = [
        (ProbeName(row["manufacturer"], row["name"]), f"{row['manufacturer']} {row['name']}", facts_of(row))
        for row in private.to_pylist()
        if row["name"]
    ]
    write_pictures(store, recipe, archive, "unmapped_probes", ABOUT, TO_FILL_IN, rows, name_of, index, images)


def _illustrated(store: Store, recipe: Recipe, rows: pa.Table, examples: Mapping[ProbeName, pa.Table]) -> str:
    """The worklist as a Markdown table with pictures."""
    shown = rows.slice(0, ILLUSTRATED)
    names = [ProbeName(row["manufacturer"], row["name"]) for row in shown.to_pylist()]
    few = {name: examples[name].slice(0, EXAMPLES) for name in names if name in examples}
    pictures = example_urls(store, recipe, few)
    return markdown_table(shown, [pictures.get(name, []) for name in names])
