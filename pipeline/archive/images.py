"""Records to the image cache.

Belongs here: choosing frames, having them decoded, writing the cache whole, the ledger of frames. Not here: how a
frame is decoded (`pixels`), the format of a shard (`pipeline.images.cache`).
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from pipeline import code_versions
from pipeline.archive.listing import ArchiveFile, cannot_be_read, read_file_list
from pipeline.archive.pixels import LIBRARIES, Grey, Job, decode_small, frames_to_take
from pipeline.archive.quarantine import Reason, Rejection, rejection_table
from pipeline.archive.reading import Unopened
from pipeline.archive.workers import Crashed, each_in_worker
from pipeline.errors import UserError
from pipeline.files import digest, read_json, read_table, write_json, write_table
from pipeline.images.cache import SHARDS, CachedImage, cached_images, shard_name, shard_of, write_shard
from pipeline.progress import Progress, Say, silent
from pipeline.recipe import Archive, Images
from pipeline.tables import IMAGES, REJECTED_FRAMES


@dataclass(frozen=True)
class Cache:
    """A cache's `folder`, its `images` (schema IMAGES), the `rejected` frames (REJECTED_FRAMES) and frames selected."""

    folder: Path
    images: pa.Table
    rejected: pa.Table
    frames: int


@dataclass(frozen=True, slots=True)
class _Selected:
    """One record's frames that are to become images."""

    file_id: str
    sop_instance: str
    frames: tuple[int, ...]


def cache_folder(root: Path, images: Images, settings: Archive) -> Path:
    """Where the cache of these settings and of the installed decoders lies below `root`."""
    key = digest(_description(images, settings))
    return root / f"{images.height}x{images.width}-{key[:12]}"


def build_cache(
    records: pa.Table, archive: Path, private: Path, root: Path, images: Images, settings: Archive, say: Say = silent
) -> Cache:
    """Decode the selected frames of `records` (schema DICOM_INDEX) into a cache below `root`, and return it.

    Nothing is decoded where records, files and settings are those of the cache that is there. The new cache takes the
    old one's place when it is complete. A frame that does not decode is a row of `rejected`.
    """
    folder = cache_folder(root, images, settings)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{folder.name}.lock"):
        files = read_file_list(private)
        selected = _select(records, settings.frames_per_cine)
        state = private / f"cache-{folder.name}.json"
        fingerprint = _fingerprint(records, files)
        if not (folder.is_dir() and state.is_file() and read_json(state) == {"fingerprint": fingerprint}):
            state.unlink(missing_ok=True)
            _rebuild(folder, selected, files, archive, images, settings, say)
            write_json(state, {"fingerprint": fingerprint})
        return _opened(folder, records, sum(len(record.frames) for record in selected))


def _description(images: Images, settings: Archive) -> dict[str, object]:
    """What a cached pixel depends on besides the archive's files."""
    return {
        "height": images.height,
        "width": images.width,
        "frames_per_cine": settings.frames_per_cine,
        "code": code_versions.IMAGES,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _select(records: pa.Table, per_cine: int) -> list[_Selected]:
    """The records' frames in the order in which shards hold them."""
    columns = (records[name].to_pylist() for name in ("file_id", "sop_instance", "frames"))
    selected = [_Selected(f, s, tuple(frames_to_take(n, per_cine))) for f, s, n in zip(*columns, strict=True)]
    return sorted(selected, key=lambda record: (shard_of(record.sop_instance), record.sop_instance))


def _fingerprint(records: pa.Table, files: dict[str, ArchiveFile]) -> str:
    """Digest of the rows, and of the size and time of every file they come from."""
    known = [files.get(file) for file in records["file_id"].to_pylist()]
    if None in known:
        raise UserError("dicom_index names files that the last scan did not see: run the job `ingest` again.")
    states = [(file.size, file.modified_ns) for file in known if file]
    return digest(records.to_pydict(), states)


def _rebuild(
    folder: Path,
    selected: list[_Selected],
    files: dict[str, ArchiveFile],
    archive: Path,
    images: Images,
    settings: Archive,
    say: Say,
) -> None:
    """Write a cache beside `folder` and put it in its place."""
    for unfinished in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(unfinished)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        _fill(temporary, selected, files, archive, images, say)
        write_json(temporary / "cache.json", _description(images, settings))
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(
    folder: Path,
    selected: list[_Selected],
    files: dict[str, ArchiveFile],
    archive: Path,
    images: Images,
    say: Say,
) -> None:
    """Write shards and rejected frames into `folder`."""
    jobs = (
        Job(str(archive / files[record.file_id].path), record.frames, images.height, images.width)
        for record in selected
    )
    rejections: list[tuple[str, Rejection]] = []
    with Progress("images", len(selected), "files", say) as progress:
        _write_shards(folder, _frames(selected, jobs, rejections, progress), images)
    write_table(folder / "rejected.parquet", rejection_table("frame", rejections))


def _frames(
    selected: list[_Selected], jobs: Iterator[Job], rejections: list[tuple[str, Rejection]], progress: Progress
) -> Iterator[CachedImage]:
    """The frames that decode, in order; the others are added to `rejections`."""
    for record, result in zip(selected, each_in_worker(decode_small, jobs), strict=True):
        outcomes = _outcomes(record, result)
        for frame, outcome in zip(record.frames, outcomes, strict=True):
            if isinstance(outcome, Rejection):
                rejections.append((f"{record.file_id}:{frame}", outcome))
            else:
                yield CachedImage(record.sop_instance, frame, outcome)
        progress.advance()


def _outcomes(record: _Selected, result: list[Grey | Rejection] | Unopened | Crashed) -> Sequence[Grey | Rejection]:
    """One outcome per selected frame; raises `UserError` for a file that the system does not let us read."""
    if isinstance(result, list):
        return result
    if isinstance(result, Unopened) and not result.vanished:
        raise cannot_be_read(record.file_id, result.why)
    why = "the file vanished" if isinstance(result, Unopened) else "the decoder died"
    return [Rejection(Reason.UNDECODABLE, why)] * len(record.frames)


def _write_shards(folder: Path, images: Iterator[CachedImage], size: Images) -> None:
    """Write `images`, which come in the order of their shards; a shard without images is no file."""
    pending = next(images, None)

    def of_shard(shard: int) -> Iterator[CachedImage]:
        nonlocal pending
        while pending is not None and shard_of(pending.sop_instance) == shard:
            yield pending
            pending = next(images, None)

    for shard in range(SHARDS):
        write_shard(folder / shard_name(shard), of_shard(shard), size.height, size.width)


def _opened(folder: Path, records: pa.Table, frames: int) -> Cache:
    rows = cached_images(folder)
    patients = records["patient"].take(pc.index_in(rows["sop_instance"], value_set=records["sop_instance"]))
    images = rows.append_column("patient", patients).select(IMAGES.schema.names).cast(IMAGES.schema)
    rejected = read_table(folder / "rejected.parquet").cast(REJECTED_FRAMES.schema)
    if frames != images.num_rows + rejected.num_rows:
        raise RuntimeError("The ledger of frames does not balance.")
    return Cache(folder, images, rejected, frames)
