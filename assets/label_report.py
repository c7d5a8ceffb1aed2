"""The label report: what each label of the pool goes with beside the anatomy, before anything is trained."""

import dagster as dg
import pyarrow as pa

from assets.catalog import COHORT
from assets.failures import HOOKS
from assets.labels import MappingVersion
from assets.step import Context, Materializations, step, warning
from assets.tables import size_and_columns, table_version
from pipeline import code_versions
from pipeline.locks import tables_lock
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import LABEL_REPORT
from resources.store import StoreFolder
from resources.tracking import Tracking

_SPAN = dg.AssetCheckSpec(
    "labels_span_machines",
    asset="label_report",
    description="No label is nearly one machine's or one folder's, or follows from them: a network could learn the "
    "look of their images instead.",
)


def label_report_asset(recipe: Recipe, mapping: MappingVersion) -> dg.AssetsDefinition:
    """`label_report`, with its check."""

    @dg.asset(
        hooks=HOOKS,
        name="label_report",
        deps=["pool_labels"],
        description="One row per label of the pool: images, patients, folders and machines, what the label goes with "
        "beside the anatomy (Cramér's V), and which labels are too rare. Read it before you believe that labels help.",
        code_version=f"{code_versions.COHORT}-{mapping.meaning}",
        group_name=COHORT,
        kinds={"parquet"},
        check_specs=[_SPAN],
    )
    def report(
        context: Context,
        store: StoreFolder,
        tracking: Tracking,
        pretraining_pool: pa.Table,
        dicom_index: pa.Table,
        image_cache: pa.Table,
    ) -> Materializations:
        from pipeline.cohort.label_report_text import in_words, label_pairs

        inputs = pretraining_pool, dicom_index, image_cache
        with step(context, store, tracking, recipe) as here:
            with here.holding(tables_lock(here.store, here.log), *inputs) as (pool, index, images):
                rows = _write_report(here.store, recipe, pool, index, images)
                pairs = label_pairs(pool, recipe.labels)
            yield here.made(
                "label_report",
                table_version(rows),
                {
                    **size_and_columns(LABEL_REPORT, rows),
                    "what labels go with": dg.MetadataValue.md(in_words(rows, pairs)),
                },
                checks=[_spans(rows)],
            )

    return report


def _write_report(store: Store, recipe: Recipe, pool: pa.Table, index: pa.Table, images: pa.Table) -> pa.Table:
    from pipeline.cohort.label_report import label_report
    from pipeline.pretraining.top_folders import top_folders

    folders = top_folders(store.private, pool["sop_instance"].to_pylist())
    rows = label_report(pool, index, images, folders, recipe.labels, recipe.images.height)
    LABEL_REPORT.write(store.experiment(recipe.name).tables, rows)
    return rows


def _spans(rows: pa.Table) -> dg.AssetCheckResult:
    """Names the labels that are nearly one machine's or one folder's, or follow from machine or folder."""
    from pipeline.cohort.label_report import bound_to_machines

    named = [f"{label} ({', '.join(flags)})" for label, flags in bound_to_machines(rows).items()]
    found = f"labels that go with a folder or machine: {'; '.join(named)}" if named else "every label spans several"
    return warning(not named, found, _SPAN.name, labels=len(named))
