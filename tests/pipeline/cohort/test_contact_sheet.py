"""The contact sheet: the images of each cell."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.cohort.contact_sheet import MOST, contact_sheet
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.images.cache import CachedImage, CroppedImage, read_shard, shard_name, shard_of, write_shard
from pipeline.tables import pretraining_pool_table

NAMES = ("liver", "thyroid", "linear", "curvilinear")
ROWS, COLUMNS = ("liver", "thyroid"), ("linear", "curvilinear")


@pytest.fixture
def pooled(tmp_path):
    """A cache of images of one level each, and their pool: six patients with two images of liver, one of thyroid."""
    levels = {f"{number:02x}{'0' * 30}": 10 * number for number in range(1, 14)}
    rows = []
    for shard in {shard_of(instance) for instance in levels}:
        images = [
            CachedImage(
                instance, 0, CroppedImage(np.full((4, 6), level, "u1"), f"source {instance}", "regions", None, None)
            )
            for instance, level in levels.items()
            if shard_of(instance) == shard
        ]
        write_shard(tmp_path / shard_name(shard), images, 4, 6)
        for position, kept in enumerate(read_shard(tmp_path / shard_name(shard), 4, 6)):
            number = levels[kept.sop_instance] // 10
            thyroid = number == 13
            labels = (0, 1, 1, 0) if thyroid else (1, 0, 0, 1)
            place = (f"patient {(number + 1) // 2}", shard_name(shard), position)
            digests = hashlib.sha256(kept.image.pixels.tobytes()).hexdigest(), kept.image.source_digest
            row = (kept.sop_instance, 0, *place, *digests, "train", *labels)
            rows.append(dict(zip(pretraining_pool_table(NAMES).schema.names, row, strict=True)))
    write_json(tmp_path / "cache.json", {"height": 4, "width": 6})
    pool = pa.Table.from_pylist(rows, schema=pretraining_pool_table(NAMES).schema).sort_by("sop_instance")
    return pool, tmp_path


def levels_of(path):
    """Grey level of each cell of the sheet, rows x columns; 24 if it is empty."""
    sheet = np.asarray(Image.open(path))
    across = [84 + column * (MOST * 150 + 12) + place * 150 + 75 for column in (0, 1) for place in range(MOST)]
    return [[int(sheet[18 + row * 100 + 50, x]) for x in across] for row in (0, 1)]


def test_a_pair_of_labels_shows_one_image_each_of_its_first_patients(pooled, tmp_path):
    pool, folder = pooled
    contact_sheet(pool, folder, ROWS, COLUMNS, tmp_path / "sheet.png")
    empty = [24] * MOST
    assert levels_of(tmp_path / "sheet.png") == [[*empty, 10, 30, 50, 70], [130, 24, 24, 24, *empty]]


def test_the_same_pool_gives_the_same_bytes(pooled, tmp_path):
    pool, folder = pooled
    for name in ("one.png", "two.png"):
        contact_sheet(pool, folder, ROWS, COLUMNS, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_pool_without_labelled_images_gives_a_sheet_with_label_names_only(pooled, tmp_path):
    pool, folder = pooled
    contact_sheet(pool.slice(0, 0), folder, ROWS, COLUMNS, tmp_path / "sheet.png")
    assert levels_of(tmp_path / "sheet.png") == [[24] * 8] * 2
    assert np.asarray(Image.open(tmp_path / "sheet.png")).max() == 255


def test_an_image_with_an_unknown_label_is_not_on_the_sheet(pooled, tmp_path):
    pool, folder = pooled
    unknown = pool.set_column(pool.column_names.index("thyroid"), "thyroid", pa.nulls(pool.num_rows, pa.int8()))
    contact_sheet(unknown, folder, ROWS, COLUMNS, tmp_path / "sheet.png")
    assert levels_of(tmp_path / "sheet.png")[1] == [24] * 8


def test_a_missing_shard_raises_a_user_error(pooled, tmp_path):
    pool, folder = pooled
    for shard in folder.glob("part-*"):
        shard.unlink()
    with pytest.raises(UserError):
        contact_sheet(pool, folder, ROWS, COLUMNS, tmp_path / "sheet.png")


def test_labels_of_one_source_are_in_one_column(pooled, tmp_path):
    pool, folder = pooled
    contact_sheet(pool, folder, ROWS, (), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert [int(sheet[18 + 50, 84 + place * 150 + 75]) for place in range(MOST)] == [10, 30, 50, 70]
