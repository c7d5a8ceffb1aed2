"""The image cache: Parquet shards of grey images, and reading them back as one array.

Belongs here: the format of a shard, writing and reading it. Not here: decoding, what an image is used for.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.tables import IMAGES

SHARDS = 64
ROW_GROUP = 256
"""Images per row group, and in memory at a time while a shard is written."""


@dataclass(frozen=True)
class CachedImage:
    """One image on its way into a shard; `pixels` is height x width, uint8."""

    sop_instance: str
    frame: int
    pixels: npt.NDArray[np.uint8]


def shard_of(sop_instance: str) -> int:
    """Which of the 64 shards holds the images of an instance: its pseudonym's first byte, modulo 64."""
    return int(sop_instance[:2], 16) % SHARDS


def shard_name(shard: int) -> str:
    """File name of a shard, `part-00.parquet` to `part-3f.parquet`."""
    return f"part-{shard:02x}.parquet"


def write_shard(path: Path, images: Iterable[CachedImage], height: int, width: int) -> None:
    """Write `images`, sorted by instance and frame, as one shard; nothing is written where there are none.

    Columns sop_instance, frame, image_digest (SHA-256 of the pixels) and pixels (height x width bytes). The same
    images give the same bytes.
    """
    schema = pa.schema(
        [
            *(IMAGES.schema.field(name).remove_metadata() for name in ("sop_instance", "frame", "image_digest")),
            pa.field("pixels", pa.binary(height * width), nullable=False),
        ]
    )
    writer: pq.ParquetWriter | None = None
    try:
        for group in _batched(images, ROW_GROUP):
            # Dictionaries and statistics cost room and time where no two values are alike.
            writer = writer or pq.ParquetWriter(
                path, schema, compression="lz4", use_dictionary=False, write_statistics=False
            )
            writer.write_table(_group_table(group, schema), row_group_size=ROW_GROUP)
    finally:
        if writer:
            writer.close()


def _batched(images: Iterable[CachedImage], size: int) -> Iterator[list[CachedImage]]:
    group: list[CachedImage] = []
    for image in images:
        group.append(image)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _group_table(group: list[CachedImage], schema: pa.Schema) -> pa.Table:
    pixels = [image.pixels.tobytes() for image in group]
    columns = [
        [image.sop_instance for image in group],
        [image.frame for image in group],
        [sha256(grey).hexdigest() for grey in pixels],
        pixels,
    ]
    return pa.table(columns, schema=schema)


def cached_images(folder: Path) -> pa.Table:
    """All images of a cache without their pixels, sorted by instance and frame.

    Columns as IMAGES but `patient`, which a cache does not know.
    """
    columns = ["sop_instance", "frame", "image_digest"]
    tables = [_shard_rows(path, columns) for path in sorted(folder.glob("part-*.parquet"))]
    kept = [field for field in IMAGES.schema if field.name != "patient"]
    empty = pa.schema(kept).empty_table()
    rows = pa.concat_tables([empty, *(table.select(empty.column_names).cast(empty.schema) for table in tables)])
    return rows.sort_by([("sop_instance", "ascending"), ("frame", "ascending")])


def _shard_rows(path: Path, columns: list[str]) -> pa.Table:
    table = pq.read_table(path, columns=columns)
    table = table.append_column("shard", pa.array([path.name] * table.num_rows, pa.string()))
    return table.append_column("position", pa.array(range(table.num_rows), pa.int64()))


def load_pixels(folder: Path, pool: pa.Table) -> npt.NDArray[np.uint8]:
    """The pixels of the pool's images, N x height x width uint8, in the pool's order.

    `pool` needs the columns sop_instance, frame, shard and position. Shards are memory-mapped and read one at a time.
    Raises `UserError` where a shard is missing or is not the one the pool was made from.
    """
    size = read_json(_existing(folder / "cache.json"))
    height, width = int(size["height"]), int(size["width"])
    images_nhw = np.empty((pool.num_rows, height, width), np.uint8)
    rows_of_shard: dict[str, list[int]] = defaultdict(list)
    for row, shard in enumerate(pool["shard"].to_pylist()):
        rows_of_shard[shard].append(row)
    for shard, rows in rows_of_shard.items():
        images_nhw[rows] = _pixels_of_rows(_existing(folder / shard), pool.take(rows)).reshape(-1, height, width)
    return images_nhw


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path} of the image cache is missing: run the job `ingest` again.")
    return path


def _pixels_of_rows(path: Path, pool: pa.Table) -> npt.NDArray[np.uint8]:
    """Pixels of the pool's rows, all of the shard at `path`, as rows of bytes."""
    shard = pq.read_table(path, memory_map=True)
    positions = pool["position"]
    fits = pool.num_rows == 0 or max(positions.to_pylist()) < shard.num_rows
    if not fits or not all(shard[name].take(positions).equals(pool[name]) for name in ("sop_instance", "frame")):
        raise UserError(f"{path} holds other images than the pretraining pool names: run the job `ingest` again.")
    pixels = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, shard["pixels"].type.byte_width)[chunk.offset :][
            : len(chunk)
        ]
        for chunk in shard["pixels"].chunks
    ]
    taken: npt.NDArray[np.uint8] = np.concatenate(pixels)[positions.to_numpy()]
    return taken
