"""How a table is shown in Dagster: column schema, row count, preview, and counts with their meanings."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from pipeline.files import digest
from pipeline.markdown import cell, pipe_table
from pipeline.tables import Table

PREVIEW_ROWS = 8


def column_schema(schema: pa.Schema) -> dg.TableSchema:
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


def table_metadata(spec: Table, rows: pa.Table) -> dict[str, Any]:
    """Row count, column schema and the first rows of `rows`, a table of the kind `spec`."""
    first = dg.MetadataValue.md(markdown_table(rows.slice(0, PREVIEW_ROWS)))
    return {**size_and_columns(spec, rows), "first rows": first}


def size_and_columns(spec: Table, rows: pa.Table) -> dict[str, Any]:
    """Row count and column schema of `rows`, for an asset that shows its rows in a better way."""
    return {"dagster/row_count": rows.num_rows, "dagster/column_schema": column_schema(spec.schema)}


def counts_table(what: str, counts: Mapping[str, int], meanings: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    """`counts`, the greatest first, with what each one's name means, if `meanings` has it."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(cell(name), str(count), cell(meanings.get(name))) for name, count in ranked]
    return dg.MetadataValue.md(pipe_table((what, "how many", "what it means"), rows) if rows else "(none)")


def markdown_table(rows: pa.Table, examples: Sequence[Sequence[str]] = ()) -> str:
    """`rows` as a Markdown table, "(empty)" if there are none; `examples` are the URLs of each row's pictures."""
    if not rows.num_rows:
        return "(empty)"
    shown = [[cell(value) for value in row.values()] for row in rows.to_pylist()]
    head = [cell(name) for name in rows.column_names]
    if not examples:
        return pipe_table(head, shown)
    pictures = (" ".join(f"![example]({url})" for url in urls) for urls in examples)
    return pipe_table([*head, "examples"], [[*row, of_row] for row, of_row in zip(shown, pictures, strict=True)])


def table_version(rows: pa.Table) -> str:
    """Digest of a table's content: the same rows in the same order, the same version."""
    content = hashlib.sha256(repr(rows.column_names).encode())
    for start in range(0, rows.num_rows, 65_536):  # a million rows as Python objects would take gigabytes
        content.update(digest([column.to_pylist() for column in rows.slice(start, 65_536).columns]).encode())
    return content.hexdigest()[:16]
