"""From DICOM files to records: the assets of the group `archive`, and `quarantine`."""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa

from assets.catalog import REVIEW
from assets.failures import HOOKS
from assets.step import FIRST, Context, Materializations, Step, none_lost, step
from assets.tables import PREVIEW_ROWS, counts_table, markdown_table, size_and_columns, table_metadata, table_version
from pipeline import code_versions
from pipeline.dicom.rejections import Reason
from pipeline.locks import archive_lock, tables_lock
from pipeline.privacy.identity import PUBLIC_DEMO_KEY
from pipeline.progress import Log
from pipeline.recipe import Recipe
from pipeline.recipe.archive import STUDY_DESCRIPTION
from pipeline.store import Store
from pipeline.tables import DELETED_FILES, DICOM_INDEX, QUARANTINE, REJECTED_FILES
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.archive.listing import Traces
    from pipeline.archive.scan import Index

GROUP = "archive"


def index_archive(recipe: Recipe) -> dg.AssetsDefinition:
    """`dicom_index` with `rejected_files` and `deleted_files`, which all recipes share."""
    check = dg.AssetCheckSpec(
        "no_file_lost", asset="dicom_index", blocking=True, description="files = records + rejected files"
    )

    @dg.multi_asset(hooks=HOOKS, specs=_index_specs(recipe), check_specs=[check], op_tags=FIRST, name="index_archive")
    def dicom_index(context: Context, store: StoreFolder, archive: Archive, tracking: Tracking) -> Materializations:
        with step(context, store, tracking, recipe) as here:
            key = archive.key(here.store.private)
            index = _write_index(here, archive.folder, key, recipe)
            if index.unreadable:
                here.log(
                    f"{index.unreadable} files or folders could not be read now; they are in rejected_files, and the "
                    "next run tries again."
                )
            yield _dicom_index(here, index, key)
            for table, rows in ((REJECTED_FILES, index.rejected), (DELETED_FILES, index.deleted)):
                yield here.made(table.name, table_version(rows), table_metadata(table, rows))

    return dicom_index


def _index_specs(recipe: Recipe) -> list[dg.AssetSpec]:
    modalities = ", ".join(recipe.archive.modalities)
    version, described_by = f"{code_versions.INDEX}-{modalities}", recipe.archive.descriptions
    chosen = "" if described_by == STUDY_DESCRIPTION else f"-{','.join(described_by)}"
    spec = partial(dg.AssetSpec, group_name=GROUP, kinds={"parquet"})
    records = f"One row per record: an SOP instance of {modalities} whose header was read, pseudonymous."
    rejected = "One row per archive file that became no record, with its reason."
    deleted = "One row per archive file that an earlier run read and that is gone; its images are too."
    return [
        spec("dicom_index", description=records, code_version=version + chosen, kinds={"parquet", "dicom"}),
        spec("rejected_files", description=rejected, code_version=version),
        spec("deleted_files", description=deleted, code_version=version),
    ]


def _write_index(here: Step, archive: str, key: bytes, recipe: Recipe) -> "Index":
    """Read what is new in the archive, and write the tables of its files."""
    from pipeline.archive.scan import index_archive

    store = here.store
    with archive_lock(store, here.log):
        erase = partial(_erase_traces, store, here.log)
        index = index_archive(archive, store.private, key, recipe.archive, here.log, erase)
        DICOM_INDEX.write(store.tables, index.records)
        REJECTED_FILES.write(store.tables, index.rejected)
        DELETED_FILES.write(store.tables, index.deleted)
    return index


def _dicom_index(here: Step, index: "Index", key: bytes) -> dg.MaterializeResult[None]:
    counts = {"files": index.files, "records": index.records.num_rows, "rejected": index.rejected.num_rows}
    return here.made(
        "dicom_index",
        table_version(index.records),
        {
            **table_metadata(DICOM_INDEX, index.records),
            **counts,
            "files read": index.read,
            "files to read again": index.unreadable,
            "pseudonym key": "PUBLIC: the phantom clinic's" if key == PUBLIC_DEMO_KEY else "secret",
            "patients": len(index.records["patient"].unique()),
        },
        metrics=counts,
        checks=[none_lost("no_file_lost", counts)],
    )


def quarantine_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """`quarantine`, of the recipe's frames and of all files."""

    @dg.asset(
        hooks=HOOKS,
        description="What was left out, and why: one row per archive file that became no record, and per frame that "
        "became no image. Images that wait for their description to be mapped are not here: see unmapped_descriptions.",
        code_version=code_versions.INDEX,
        group_name=REVIEW,
        kinds={"parquet"},
    )
    def quarantine(
        context: Context, store: StoreFolder, tracking: Tracking, rejected_files: pa.Table, rejected_frames: pa.Table
    ) -> Materializations:
        with step(context, store, tracking, recipe) as here:
            with here.holding(tables_lock(here.store, here.log), rejected_files, rejected_frames) as rejections:
                rows = pa.concat_tables(rejections)
                QUARANTINE.write(here.store.experiment(recipe.name).tables, rows)
            reasons = Counter(rows["reason"].to_pylist())
            yield here.made(
                "quarantine",
                table_version(rows),
                {
                    "reasons": counts_table("reason", reasons, {reason.value: reason.meaning for reason in Reason}),
                    "which file is it": dg.MetadataValue.md("`python -m pipeline.archive locate ID` prints its path"),
                    "first rows": dg.MetadataValue.md(markdown_table(_narrow(rows.slice(0, PREVIEW_ROWS)))),
                    **size_and_columns(QUARANTINE, rows),
                },
                metrics={f"rejected.{reason}": count for reason, count in reasons.items()},
            )

    return quarantine


def _erase_traces(store: Store, log: Log, traces: "Traces") -> None:
    """Remove from the tables the rows of erased patients that the archive's newest files identify."""
    from pipeline.archive.erase import erase_traces

    with tables_lock(store, log):
        erase_traces(store, traces)


def _narrow(rows: pa.Table) -> pa.Table:
    """`rows` of the quarantine as narrow as Dagster's page is: each id, and its reason and detail as one text."""
    why = [f"{row['reason']}: {row['detail']}" if row["detail"] else row["reason"] for row in rows.to_pylist()]
    return pa.table({"id": rows["id"], "why": why})
