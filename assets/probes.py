"""The worklist of probes whose shape is unknown. Not here: what their names mean (`pipeline.labels`)."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets.catalog import REVIEW
from assets.failures import HOOKS
from assets.labels import EXAMPLES, ILLUSTRATED, MappingVersion
from assets.pictures import example_urls
from assets.step import Context, Materializations, step
from assets.tables import markdown_table, size_and_columns, table_version
from pipeline import code_versions
from pipeline.cohort.patient_links import canonical_patients, tied_patients
from pipeline.files import write_text
from pipeline.labels.probe_tables import probes_for
from pipeline.labels.probe_worklist import ProbeName, unknown_names, unmapped_probes, worklist_csv
from pipeline.locks import tables_lock
from pipeline.recipe import Recipe
from pipeline.recipe.labels import SHAPES
from pipeline.store import Store
from pipeline.tables import UNMAPPED_PROBES
from resources.store import StoreFolder
from resources.tracking import Tracking

WORKLIST = "unmapped_probes.csv"
TO_FILL_IN = """\
1. Copy `private/experiments/{recipe}/unmapped_probes.csv` of the store into the folder that SONOTAG_STUDY_GROUPS names.
2. Correct `shape`, and delete the question mark.
3. Press *Reload definitions* (Lineage), and launch `ingest` again.
"""


def unmapped_probes_asset(recipe: Recipe, mapping: Path, version: MappingVersion) -> dg.AssetsDefinition:
    """`unmapped_probes`: the worklist as a table, and in the private folder as a CSV to fill in."""

    @dg.asset(
        hooks=HOOKS,
        name="unmapped_probes",
        description="The worklist of probes: one row per name whose shape neither the makers' conventions nor the "
        "user's rows state, with counts, images and a suggested shape, which is not a review.",
        code_version=f"{code_versions.LABELS}{version.probes}",
        group_name=REVIEW,
        kinds={"parquet", "csv"},
    )
    def unmapped(
        context: Context, store: StoreFolder, tracking: Tracking, dicom_index: pa.Table, image_cache: pa.Table
    ) -> Materializations:
        with step(context, store, tracking, recipe) as here:
            with here.holding(tables_lock(here.store, here.log), dicom_index, image_cache) as (index, images):
                rows, unknown = _worklist(here.store, recipe, mapping, index)
                UNMAPPED_PROBES.write(here.store.experiment(recipe.name).tables, rows)
            name_of = dict(zip(index["sop_instance"].to_pylist(), unknown, strict=True))
            named = {key: name for key, name in name_of.items() if name}
            pictures = _illustrated(here.store, recipe, rows, named, images)
            yield here.made(
                "unmapped_probes",
                table_version(rows),
                {
                    **size_and_columns(UNMAPPED_PROBES, rows),
                    "for the reviewer": dg.MetadataValue.md(pictures),
                    "to fill in": dg.MetadataValue.md(TO_FILL_IN.format(recipe=recipe.name)),
                    "shapes to choose from": ", ".join(SHAPES),
                },
                metrics={"unmapped_probes": rows.num_rows},
            )

    return unmapped


def _worklist(
    store: Store, recipe: Recipe, mapping: Path, index: pa.Table
) -> tuple[pa.Table, Sequence[ProbeName | None]]:
    """The worklist as it may be published, and each record's unknown probe; writes the whole list as a private CSV."""
    probes = probes_for(mapping, recipe.labels)
    unknown = unknown_names(index, recipe.labels, probes)
    write_text(store.private_of(recipe.name) / WORKLIST, worklist_csv(unmapped_probes(index, unknown, probes)))
    aliases = canonical_patients(tied_patients(index))
    return unmapped_probes(index, unknown, probes, recipe.archive.description_patients, aliases), unknown


def _illustrated(store: Store, recipe: Recipe, rows: pa.Table, name_of: dict[str, ProbeName], images: pa.Table) -> str:
    """The worklist as a Markdown table with pictures."""
    from pipeline.labels.worklist import example_images

    shown = rows.slice(0, ILLUSTRATED)
    names = [ProbeName(row["manufacturer"], row["name"]) for row in shown.to_pylist()]
    pictures = example_urls(store, recipe, example_images(name_of, images, names, EXAMPLES))
    return markdown_table(shown, [pictures.get(name, []) for name in names])
