"""The image cache: Parquet shards of grey images, written once and read back as one array."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from random import Random
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import code_versions
from pipeline.errors import UserError
from pipeline.files import atomic_replace, damaged_if_unreadable, digest, read_json, read_table
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.tables import IMAGES

SHARDS = 64
ROW_GROUP = 256
"""Images per row group, and in memory at a time while a shard is written."""
SAMPLED_SHARDS, SAMPLED_IMAGES = 4, 1000
"""How many shards `check_sample` reads, and how many of their images at most."""
MEMORY_SHARE = 0.5
"""Images that exceed this share of the machine's memory, or of a GPU's free memory, are not held in it."""

_READERS = min(8, os.cpu_count() or 1)  # shards read at a time


@dataclass(frozen=True, slots=True)
class CroppedImage:
    """A frame cropped and resized: `pixels` is height x width, uint8; the rest as in IMAGES."""

    pixels: npt.NDArray[np.uint8]
    source_digest: str
    cropped_by: str
    row_spacing_mm: float | None
    column_spacing_mm: float | None


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image in a shard, with the pseudonym of its SOP instance and its frame number."""

    sop_instance: str
    frame: int
    image: CroppedImage


_IMAGE_COLUMNS = [field.name for field in fields(CroppedImage) if field.name != "pixels"]
_IDENTITY = ("sop_instance", "frame", "image_digest")
_CONTENT = b"content"
_LOCATION_COLUMNS = {"patient", "shard", "position"}  # columns of IMAGES that no shard holds


def cache_folder(root: Path, images: Images, settings: Archive) -> Path:
    """The folder of these settings' cache below `root`."""
    return root / f"{images.height}x{images.width}-{digest(cache_description(images, settings))[:12]}"


def cache_description(images: Images, settings: Archive) -> dict[str, object]:
    """The settings that a cache depends on, as in its cache.json."""
    return {
        "height": images.height,
        "width": images.width,
        "modalities": sorted(set(settings.modalities)),
        **settings.model_dump(include={"frames_per_cine", "b_mode_only"}),
        "code": code_versions.IMAGES,
    }


def shard_of(sop_instance: str) -> int:
    """The shard, of 64, of an instance's images: the first byte of its pseudonym, modulo 64."""
    return int(sop_instance[:2], 16) % SHARDS


def shard_name(shard: int) -> str:
    """File name of a shard, `part-00.parquet` to `part-3f.parquet`."""
    return f"part-{shard:02x}.parquet"


def write_shard(path: Path, images: Iterable[CachedImage], height: int, width: int) -> str | None:
    """Write `images`, sorted by instance and frame, as one shard, whole or not at all; without images remove it.

    Its columns are those of IMAGES (image_digest is the SHA-256 of the pixels) and pixels, height x width bytes. The
    same images give the same bytes. Returns the digest of the content as `shard_content` does, None without images.
    """
    remaining = iter(images)
    groups = iter(lambda: list(islice(remaining, ROW_GROUP)), [])
    first = next(groups, None)
    if first is None:
        path.unlink(missing_ok=True)
        return None
    with atomic_replace(path) as temporary:
        return _write_groups(temporary, chain([first], groups), _shard_schema(height, width))


def _shard_schema(height: int, width: int) -> pa.Schema:
    kept = [field.remove_metadata() for field in IMAGES.schema if field.name not in _LOCATION_COLUMNS]
    return pa.schema([*kept, pa.field("pixels", pa.binary(height * width), nullable=False)])


def _write_groups(path: Path, groups: Iterable[list[CachedImage]], schema: pa.Schema) -> str:
    content = sha256()
    # Nearly all values differ, so dictionaries and statistics would only cost space and time.
    with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False, write_statistics=False) as writer:
        for group in groups:
            table = _group_table(group, schema)
            for identity in zip(*(table[name].to_pylist() for name in _IDENTITY), strict=True):
                content.update("{} {} {}\n".format(*identity).encode())
            writer.write_table(table, row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({_CONTENT: content.hexdigest().encode()})
    return content.hexdigest()


def _group_table(group: list[CachedImage], schema: pa.Schema) -> pa.Table:
    pixels = [cached.image.pixels.tobytes() for cached in group]
    columns = {name: [getattr(cached.image, name) for cached in group] for name in _IMAGE_COLUMNS}
    columns |= {name: [getattr(cached, name) for cached in group] for name in ("sop_instance", "frame")}
    columns |= {"image_digest": [sha256(grey).hexdigest() for grey in pixels], "pixels": pixels}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def shard_content(path: Path) -> str | None:
    """The digest of a shard's content, None if the shard is missing or unreadable."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return metadata[_CONTENT].decode() if _CONTENT in metadata else None


def read_shard(path: Path, height: int, width: int) -> Iterator[CachedImage]:
    """The images of a shard in order, one row group in memory at a time; none if the shard is missing."""
    if not path.is_file():
        return
    with damaged_if_unreadable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(
            batch_size=ROW_GROUP, columns=["sop_instance", "frame", *_IMAGE_COLUMNS, "pixels"]
        ):
            for row in batch.to_pylist():
                pixels = np.frombuffer(row.pop("pixels"), np.uint8).reshape(height, width)
                yield CachedImage(row.pop("sop_instance"), row.pop("frame"), CroppedImage(pixels, **row))


def cached_images(folder: Path) -> pa.Table:
    """All images of a cache without their pixels, sorted by instance and frame: IMAGES without `patient`."""
    tables = [_shard_rows(path) for path in sorted(folder.glob("part-*.parquet"))]
    empty = pa.schema([field for field in IMAGES.schema if field.name != "patient"]).empty_table()
    rows = pa.concat_tables([empty, *(table.select(empty.column_names).cast(empty.schema) for table in tables)])
    return rows.sort_by([("sop_instance", "ascending"), ("frame", "ascending")]).combine_chunks()


def _shard_rows(path: Path) -> pa.Table:
    table = read_table(path, [name for name in IMAGES.schema.names if name not in _LOCATION_COLUMNS])
    table = table.append_column("shard", pa.array([path.name] * table.num_rows, pa.string()))
    return table.append_column("position", pa.array(range(table.num_rows), pa.int64()))


def load_pixels(folder: Path, pool: pa.Table, memory_share: float = MEMORY_SHARE) -> npt.NDArray[np.uint8]:
    """The pixels of the pool's images, N x height x width uint8, in the pool's order.

    `pool` needs the columns sop_instance, frame, image_digest, shard and position. Pixels that exceed `memory_share` of
    the machine's memory lie in a mapped, unnamed file beside the shards, which disappears with the array, also after a
    kill. Raises `UserError` if a shard is missing, damaged or not the one of the pool, and if the disk is full.
    """
    size = read_json(_require_file(folder / "cache.json"))
    height, width = int(size["height"]), int(size["width"])
    images = _allocate(folder, (pool.num_rows, height * width), memory_share)
    shards = pool["shard"].combine_chunks().dictionary_encode()
    rows_of_shard = [np.flatnonzero(shards.indices.to_numpy() == code) for code in range(len(shards.dictionary))]
    with ThreadPoolExecutor(_READERS) as readers:
        filled = readers.map(partial(_fill, folder, pool, images), shards.dictionary.to_pylist(), rows_of_shard)
        deque(filled, maxlen=0)  # raises the exceptions of readers
    return images.reshape(-1, height, width)


@dataclass(frozen=True)
class DamageReport:
    """What a sample of a cache showed: images and shards that were read, and the names of damaged images."""

    images: int
    shards: int
    damaged: list[str]


def check_sample(folder: Path, images: pa.Table, seed: str) -> DamageReport:
    """Compare a sample of the cached `images` with their digests; other seeds draw other shards."""
    draws, shards = Random(seed), sorted(set(images["shard"].to_pylist()))
    sample = draws.sample(shards, min(SAMPLED_SHARDS, len(shards)))
    rows = images.filter(pc.is_in(images["shard"], value_set=pa.array(sample, pa.string())))
    chosen = sorted(draws.sample(range(rows.num_rows), min(SAMPLED_IMAGES, rows.num_rows)))
    rows = rows.take(pa.array(chosen, pa.int64()))
    return DamageReport(rows.num_rows, len(sample), damaged_images(folder, rows))


def damaged_images(folder: Path, rows: pa.Table) -> list[str]:
    """The images of `rows` (columns as for `load_pixels`) whose cached pixels do not match their digest.

    Returned by instance and frame, such as `0a…:0`. Raises as `load_pixels`.
    """
    names = zip(*(rows[name].to_pylist() for name in _IDENTITY), strict=True)
    found = zip(names, load_pixels(folder, rows), strict=True)
    return [f"{instance}:{frame}" for (instance, frame, wanted), grey in found if sha256(grey).hexdigest() != wanted]


def _allocate(folder: Path, shape: tuple[int, int], memory_share: float) -> npt.NDArray[np.uint8]:
    """An uninitialized array in memory or in an unnamed file in `folder`."""
    size = shape[0] * shape[1]
    if size <= memory_share * host_memory():
        return np.empty(shape, np.uint8)
    try:
        with TemporaryFile(dir=folder) as file:
            os.posix_fallocate(
                file.fileno(), 0, size
            )  # without it, a full disk would kill the process on writing a page
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        large = f"{size / 1e9:.1f} GB of images, which exceed the memory"
        raise UserError(f"{folder} has no space for {large}: {error.strerror}.") from None


def host_memory() -> int:
    """Bytes of memory of this machine, or of its container (cgroup v2) if that has less."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such file, or "max"
        return min(installed, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return installed


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path} of the image cache is missing: run the job `ingest` again.")
    return path


def _fill(folder: Path, pool: pa.Table, images: npt.NDArray[np.uint8], shard: str, rows: npt.NDArray[np.int64]) -> None:
    """Copy the pixels of the pool's `rows`, all of one `shard`, into the same rows of `images`."""
    path = folder / shard
    rows = rows[np.argsort(pool["position"].to_numpy()[rows], kind="stable")]
    wanted = pool.select([*_IDENTITY, "position"]).take(rows)
    positions = wanted["position"].to_numpy()
    with _opened(path) as file:
        start = done = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            until = int(np.searchsorted(positions, end))
            if done < until:
                found = file.read_row_group(group, [*_IDENTITY, "pixels"], use_threads=False)
                within = positions[done:until] - start
                if not all(found[n].take(within).equals(wanted[n].slice(done, until - done)) for n in _IDENTITY):
                    raise _wrong_images(path)
                _copy(found["pixels"], within, images, rows[done:until])
            start, done = end, until
    if done < len(rows):
        raise _wrong_images(path)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(_require_file(path), memory_map=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} of the image cache is damaged ({error}): run the job `ingest` again.") from None


def _copy(
    pixels: pa.ChunkedArray,
    positions: npt.NDArray[np.int64],
    images: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
) -> None:
    column = pixels.chunk(0) if pixels.num_chunks == 1 else pixels.combine_chunks()  # which copies even one chunk
    bytes_of = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, column.type.byte_width)[column.offset :]
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        images[row] = bytes_of[position]  # one copy; indexing by two arrays makes two


def _wrong_images(path: Path) -> UserError:
    return UserError(f"{path} holds other images than the pretraining pool names: run the job `ingest` again.")
