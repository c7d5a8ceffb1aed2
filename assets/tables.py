"""How a table is shown in Dagster.

Belongs here: column schema, row count and preview of a Parquet table as metadata. Not here: writing tables.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipeline.files import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.tables import Table

PREVIEW_ROWS = 8


def column_schema(schema: "pa.Schema") -> dg.TableSchema:
    """Dagster's column schema of an Arrow schema, with each column's description."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                type=str(field.type),
                description=(field.metadata or {}).get(b"description", b"").decode(),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


def table_metadata(spec: "Table", rows: "pa.Table") -> dict[str, Any]:
    """Row count, column schema and the first rows of `rows`, a table of the kind `spec`."""
    return {
        "dagster/row_count": rows.num_rows,
        "dagster/column_schema": column_schema(spec.schema),
        "first rows": dg.MetadataValue.md(markdown_table(rows.slice(0, PREVIEW_ROWS))),
    }


def markdown_table(rows: "pa.Table") -> str:
    """`rows` as a Markdown table; an empty table is said to be empty."""
    if not rows.num_rows:
        return "(empty)"
    lines = ["| " + " | ".join(rows.column_names) + " |", "|" + " --- |" * rows.num_columns]
    for row in rows.to_pylist():
        cells = ("" if value is None else str(value).replace("|", "\\|") for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_version(rows: "pa.Table") -> str:
    """Digest of a table's content: the same rows in the same order, the same version."""
    content = hashlib.sha256(repr(rows.column_names).encode())
    for start in range(0, rows.num_rows, 65_536):  # a million rows as Python objects would take gigabytes
        content.update(digest([column.to_pylist() for column in rows.slice(start, 65_536).columns]).encode())
    return content.hexdigest()[:16]
