"""From DICOM files to records.

Belongs here: the assets of the group `archive`, and what was left out of it. Not here: reading DICOM
(`pipeline.archive`).
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from assets.catalog import REVIEW
from assets.failures import HOOKS
from assets.step import FIRST, step
from assets.tables import PREVIEW_ROWS, counts_table, markdown_table, size_and_columns, table_metadata, table_version
from pipeline import code_versions
from pipeline.locks import archive_lock, tables_lock
from pipeline.progress import Log
from pipeline.recipe import Recipe
from pipeline.store import Store
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.archive.listing import Traces

GROUP = "archive"


def index_archive(recipe: Recipe) -> dg.AssetsDefinition:
    """`dicom_index` with `rejected_files` and `deleted_files`, which all recipes share."""
    modalities = ", ".join(recipe.archive.modalities)
    version = f"{code_versions.INDEX}-{modalities}"

    @dg.multi_asset(
        hooks=HOOKS,
        specs=[
            dg.AssetSpec(
                "dicom_index",
                description=f"One row per record: an SOP instance of {modalities} whose header was read, pseudonymous.",
                code_version=version,
                group_name=GROUP,
                kinds={"dicom", "parquet"},
            ),
            dg.AssetSpec(
                "rejected_files",
                description="One row per archive file that became no record, with its reason.",
                code_version=version,
                group_name=GROUP,
                kinds={"parquet"},
            ),
            dg.AssetSpec(
                "deleted_files",
                description="One row per archive file that an earlier run read and that is gone; its images are too.",
                code_version=version,
                group_name=GROUP,
                kinds={"parquet"},
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "no_file_lost", asset="dicom_index", blocking=True, description="files = records + rejected files"
            )
        ],
        op_tags=FIRST,
        name="index_archive",
    )
    def dicom_index(
        context: dg.AssetExecutionContext, store: StoreFolder, archive: Archive, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        from pipeline.archive.scan import index_archive
        from pipeline.privacy.identity import PUBLIC_DEMO_KEY
        from pipeline.tables import DELETED_FILES, DICOM_INDEX, REJECTED_FILES

        with step(context, tracking, recipe) as here:
            place = store.open()
            with archive_lock(place, here.log):
                key = archive.key(place.private)
                index = index_archive(
                    archive.folder,
                    place.private,
                    key,
                    recipe.archive,
                    here.log,
                    partial(_erase_traces, place, here.log),
                )
                DICOM_INDEX.write(place.tables, index.records)
                REJECTED_FILES.write(place.tables, index.rejected)
                DELETED_FILES.write(place.tables, index.deleted)
            if index.unreadable:
                here.log(
                    f"{index.unreadable} files or folders could not be read now; they are in rejected_files, and the "
                    "next run tries again."
                )
            counts = {"files": index.files, "records": index.records.num_rows, "rejected": index.rejected.num_rows}
            yield here.made(
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
                checks=[
                    dg.AssetCheckResult(
                        check_name="no_file_lost",
                        passed=counts["files"] == counts["records"] + counts["rejected"],
                        description="{files} files: {records} records, {rejected} rejected".format(**counts),
                        metadata=counts,
                    )
                ],
            )
            yield here.made(
                "rejected_files", table_version(index.rejected), table_metadata(REJECTED_FILES, index.rejected)
            )
            yield here.made("deleted_files", table_version(index.deleted), table_metadata(DELETED_FILES, index.deleted))

    return dicom_index


def quarantine_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """`quarantine`, of the recipe's frames and of all files."""

    @dg.asset(
        hooks=HOOKS,
        deps=["rejected_files", "rejected_frames"],
        description="What was left out, and why: one row per archive file that became no record, and per frame that "
        "became no image. Images that wait for their description to be mapped are not here: see unmapped_descriptions.",
        code_version=code_versions.INDEX,
        group_name=REVIEW,
        kinds={"parquet"},
    )
    def quarantine(
        context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        import pyarrow as pa

        from pipeline.dicom.rejections import Reason
        from pipeline.tables import QUARANTINE, REJECTED_FILES, REJECTED_FRAMES

        with step(context, tracking, recipe) as here:
            place = store.open()
            with tables_lock(place, here.log):
                tables = place.experiment(recipe.name).tables
                rows = pa.concat_tables([REJECTED_FILES.read(place.tables), REJECTED_FRAMES.read(tables)])
                QUARANTINE.write(tables, rows)
            reasons = {reason["values"]: reason["counts"] for reason in rows["reason"].value_counts().to_pylist()}
            yield here.made(
                "quarantine",
                table_version(rows),
                {
                    "reasons": counts_table("reason", reasons, {reason.value: reason.meaning for reason in Reason}),
                    "which file is it": dg.MetadataValue.md("`python -m pipeline.archive locate ID` prints its path"),
                    "first rows": dg.MetadataValue.md(markdown_table(_told(rows.slice(0, PREVIEW_ROWS)))),
                    **size_and_columns(QUARANTINE, rows),
                },
                metrics={f"rejected.{reason}": count for reason, count in reasons.items()},
            )

    return quarantine


def _erase_traces(place: Store, log: Log, traces: "Traces") -> None:
    """Take out of the tables what the archive's newest files tell of forgotten patients."""
    from pipeline.archive.erase import erase_traces

    with tables_lock(place, log):
        erase_traces(place, traces)


def _told(rows: "pa.Table") -> "pa.Table":
    """`rows` of the quarantine as narrow as Dagster's page is: each id, and its reason and detail as one text."""
    import pyarrow as pa

    why = [f"{row['reason']}: {row['detail']}" if row["detail"] else row["reason"] for row in rows.to_pylist()]
    return pa.table({"id": rows["id"], "why": why})
