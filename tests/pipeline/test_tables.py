"""Reading an archive table: an error names what is missing."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.tables import weak_labels_table


def test_a_table_of_another_recipe_is_recognized_by_its_columns(tmp_path: Path) -> None:
    table = weak_labels_table(("chest", "thin slice"))
    with pytest.raises(UserError, match="does not exist yet"):
        table.read(tmp_path)
    write_table(table.path(tmp_path), pa.table({"sop_instance": ["a"], "status": ["labelled"], "chest": [1]}))
    with pytest.raises(UserError, match="no column 'thin slice'"):
        table.read(tmp_path)
