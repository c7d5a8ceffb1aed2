"""The image cache: Parquet shards of grey images, and reading them back as one array.

Belongs here: the format of a shard, writing and reading it. Not here: decoding, what an image is used for.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.files import read_json, replacing
from pipeline.tables import IMAGES

SHARDS = 64
ROW_GROUP = 256
"""Images per row group, and in memory at a time while a shard is written."""


@dataclass(frozen=True, slots=True)
class CachedImage:
    """One image on its way into a shard, or out of it: `pixels` is height x width, uint8; the rest as in IMAGES."""

    sop_instance: str
    frame: int
    source_digest: str
    perceptual_hash: str
    cropped_by: str
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    pixels: npt.NDArray[np.uint8]


_CARRIED = [field.name for field in fields(CachedImage) if field.name != "pixels"]
_CONTENT = b"content"
_PLACED = {"patient", "shard", "position"}  # columns of IMAGES that no shard holds: they follow from where it lies


def shard_of(sop_instance: str) -> int:
    """Which of the 64 shards holds the images of an instance: its pseudonym's first byte, modulo 64."""
    return int(sop_instance[:2], 16) % SHARDS


def shard_name(shard: int) -> str:
    """File name of a shard, `part-00.parquet` to `part-3f.parquet`."""
    return f"part-{shard:02x}.parquet"


def write_shard(path: Path, images: Iterable[CachedImage], height: int, width: int) -> str | None:
    """Write `images`, sorted by instance and frame, as one shard, whole or not at all; without images there is none.

    Columns of IMAGES (image_digest is the SHA-256 of the pixels) and pixels, height x width bytes. The same images
    give the same bytes. Returns the digest of the content, which `shard_content` reads, or None.
    """
    groups = _batched(images, ROW_GROUP)
    first = next(groups, None)
    if first is None:
        path.unlink(missing_ok=True)
        return None
    with replacing(path) as temporary:
        return _write_groups(temporary, chain([first], groups), _shard_schema(height, width))


def _shard_schema(height: int, width: int) -> pa.Schema:
    kept = [field.remove_metadata() for field in IMAGES.schema if field.name not in _PLACED]
    return pa.schema([*kept, pa.field("pixels", pa.binary(height * width), nullable=False)])


def _write_groups(path: Path, groups: Iterable[list[CachedImage]], schema: pa.Schema) -> str:
    content = sha256()
    # Dictionaries and statistics cost room and time where no two values are alike.
    with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False, write_statistics=False) as writer:
        for group in groups:
            table = _group_table(group, schema)
            for instance, frame, pixels in zip(*(table[n].to_pylist() for n in _IDENTITY), strict=True):
                content.update(f"{instance} {frame} {pixels}\n".encode())
            writer.write_table(table, row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({_CONTENT: content.hexdigest().encode()})
    return content.hexdigest()


_IDENTITY = ("sop_instance", "frame", "image_digest")


def _batched(images: Iterable[CachedImage], size: int) -> Iterator[list[CachedImage]]:
    remaining = iter(images)
    while group := list(islice(remaining, size)):
        yield group


def _group_table(group: list[CachedImage], schema: pa.Schema) -> pa.Table:
    pixels = [image.pixels.tobytes() for image in group]
    columns = {name: [getattr(image, name) for image in group] for name in _CARRIED}
    columns |= {"image_digest": [sha256(grey).hexdigest() for grey in pixels], "pixels": pixels}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def shard_content(path: Path) -> str | None:
    """The digest of a shard's content, None where there is no such shard or it cannot be read."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return metadata[_CONTENT].decode() if _CONTENT in metadata else None


def read_shard(path: Path, height: int, width: int) -> Iterator[CachedImage]:
    """The images of a shard in their order, a row group in memory at a time; none where there is no such shard."""
    if not path.is_file():
        return
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP, columns=[*_CARRIED, "pixels"]):
            for row in batch.to_pylist():
                pixels = np.frombuffer(row.pop("pixels"), np.uint8).reshape(height, width)
                yield CachedImage(**row, pixels=pixels)


def cached_images(folder: Path) -> pa.Table:
    """All images of a cache without their pixels, sorted by instance and frame.

    Columns as IMAGES but `patient`, which a cache does not know.
    """
    tables = [_shard_rows(path) for path in sorted(folder.glob("part-*.parquet"))]
    empty = pa.schema([field for field in IMAGES.schema if field.name != "patient"]).empty_table()
    rows = pa.concat_tables([empty, *(table.select(empty.column_names).cast(empty.schema) for table in tables)])
    return rows.sort_by([("sop_instance", "ascending"), ("frame", "ascending")]).combine_chunks()


def _shard_rows(path: Path) -> pa.Table:
    table = pq.read_table(path, columns=[name for name in IMAGES.schema.names if name not in _PLACED])
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
