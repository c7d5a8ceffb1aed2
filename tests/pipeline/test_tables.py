"""Reading an archive table: an error names what is missing."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.files import digest, write_table
from pipeline.images.cache import cache_folder
from pipeline.recipe import Recipe
from pipeline.recipe.archive import Archive
from pipeline.tables import IMAGES, pretraining_pool_table, weak_labels_table


def test_a_table_of_another_recipe_is_recognized_by_its_columns(tmp_path: Path) -> None:
    table = weak_labels_table(("chest", "thin slice"))
    with pytest.raises(UserError, match="does not exist yet"):
        table.read(tmp_path)
    write_table(table.path(tmp_path), pa.table({"sop_instance": ["a"], "status": ["labelled"], "chest": [1]}))
    with pytest.raises(UserError, match="no column 'thin slice'"):
        table.read(tmp_path)


def test_other_description_fields_change_rows_of_the_pool_and_none_of_the_images(tmp_path: Path) -> None:
    recipe = Recipe(name="a")
    other = recipe.model_copy(update={"archive": Archive(descriptions=("SeriesDescription", "StudyDescription"))})
    pool = pretraining_pool_table(recipe.labels.names)
    for table in (IMAGES, pool):
        table.write(tmp_path, table.schema.empty_table(), recipe)
        assert table.read(tmp_path, recipe).num_rows == 0
    assert IMAGES.read(tmp_path, other).num_rows == 0
    with pytest.raises(UserError, match=r"pretraining_pool.*archive.*`ingest`"):
        pool.read(tmp_path, other)
    assert cache_folder(tmp_path, recipe.images, recipe.archive) == cache_folder(tmp_path, other.images, other.archive)


def test_the_default_description_field_leaves_the_section_as_earlier_versions_recorded_it() -> None:
    recorded = {"modalities": ["US"], "frames_per_cine": 1, "b_mode_only": True, "description_patients": 5}
    assert Archive().model_dump(mode="json") == recorded
    assert Archive(descriptions=("StudyDescription",)).model_dump(mode="json") == recorded
    assert digest(Archive(descriptions=("ProtocolName",)).model_dump(mode="json")) != digest(recorded)
