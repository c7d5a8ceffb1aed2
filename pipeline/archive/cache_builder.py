"""Records to the image cache: what is new or changed is decoded, what is there already stays.

Belongs here: which frames are wanted, which shards must be written anew, the ledger of frames. Not here: what becomes
of a frame (`frames`), the format of a shard (`pipeline.images.cache`).
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from pipeline.archive.crop_sheet import Pair
from pipeline.archive.frames import CropPreviewReader, Decoded, FrameReader, Image, Job
from pipeline.archive.indexed import CHANGED, Indexed, State
from pipeline.archive.listing import known_files, unsettle
from pipeline.archive.source import normalized
from pipeline.archive.workers import SECONDS, Failed, FaultWatch, after_tries, each_in_worker
from pipeline.dicom.decoders import decoding_libraries
from pipeline.dicom.pixel_file import select_frames
from pipeline.dicom.rejections import Reason, Rejection, UnreadableFile, rejection_table
from pipeline.errors import DamagedError, UserError
from pipeline.files import make_folder, read_json, read_table, write_json, write_table
from pipeline.images.cache import (
    SHARDS,
    CachedImage,
    cache_description,
    cache_folder,
    cached_images,
    read_shard,
    shard_content,
    shard_name,
    shard_of,
    write_shard,
)
from pipeline.mirrored import read_if_intact
from pipeline.progress import Log, Progress, silent
from pipeline.recipe import Archive, Images
from pipeline.tables import IMAGES, REJECTED_FRAMES

_STATE = pa.schema(
    [
        pa.field("sop_instance", pa.string(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("tries", pa.int64()),
    ]
)
"""What became of a wanted frame, one private table per shard: `reason` is null of an image.

`tries` counts the runs in which making it of this source was interrupted.
"""

_CHUNK = 8  # frames sent to a worker at once: a cine's files are spread over the workers
_FRAME_SECONDS = 2.0  # added to a worker's limit per frame: a large JPEG 2000 frame takes a second


@dataclass(frozen=True)
class Cache:
    """A cache's `folder`, its `images` (schema IMAGES), the `rejected` frames (REJECTED_FRAMES) and frames selected.

    `decoded` files were new or changed.
    """

    folder: Path
    images: pa.Table
    rejected: pa.Table
    frames: int
    decoded: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One record's frames that are to be images; `source` is a digest of all that their pixels depend on."""

    sop_instance: str
    frames: tuple[int, ...]
    file_id: str
    path: str
    source: str
    indexed: Indexed


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one frame of a record."""

    frame: int
    result: CachedImage | Rejection


def build_cache(
    records: pa.Table,
    archive: str,
    private: Path,
    key: bytes,
    root: Path,
    images: Images,
    settings: Archive,
    log: Log = silent,
) -> Cache:
    """Bring the cache of these settings below `root` to the state of `records` (DICOM_INDEX), and return it.

    A shard in which no wanted frame is new or changed stays as it is; in the others, only what is new or changed is
    decoded. Each shard is replaced whole, so that a killed run has lost the shard it was at. A frame that becomes no
    image is a row of `rejected`; if its file is no longer what the index describes under pseudonyms made with `key`,
    the next index reads that file again. Raises `UnreachableError` where half of the latest files cannot be read for
    what may pass.
    """
    folder = cache_folder(root, images, settings)
    make_folder(root)
    with FileLock(root / f".{folder.name}.lock"):
        make_folder(folder)
        for unfinished in [*folder.glob(".*.tmp"), *(private / "cache" / folder.name).glob(".*.tmp")]:
            unfinished.unlink()  # of a run that was killed: nobody else writes here under the lock
        write_json(folder / "cache.json", cache_description(images, settings))
        wanted = _wanted(records, known_files(private), settings, key)
        frames = sum(len(record.frames) for record in wanted)
        builder = _Builder(folder, private / "cache" / folder.name, normalized(archive), images, settings)
        try:
            decoded = builder.build(wanted, log)
            unsettle(private, builder.changed)
            return _opened(builder, folder, records, frames, decoded)
        except DamagedError as damaged:
            if damaged.path.parent == folder:
                damaged.path.unlink(missing_ok=True)  # the next run makes it again
            raise


def _wanted(records: pa.Table, known: pa.Table, settings: Archive, key: bytes) -> list[_Wanted]:
    """The records' frames in the order in which shards hold them."""
    known = known.filter(pc.invert(known["deleted"]))
    files = known.take(pc.index_in(records["file_id"], value_set=known["file_id"]))
    if files["file_id"].null_count:
        raise UserError("dicom_index names files that the last scan did not see: run the job `ingest` again.")
    names = ("sop_instance", "frames", "file_id", "transfer_syntax")
    rows = zip(
        *(records[name].to_pylist() for name in names),
        *(files[name].to_pylist() for name in ("path", "size", "version", "sop_instance", "patient")),
        strict=True,
    )
    decoders = {syntax: _decoders(syntax) for syntax in records["transfer_syntax"].unique().to_pylist()}
    wanted = [
        _Wanted(
            instance,
            tuple(select_frames(frames, settings.frames_per_cine)),
            file,
            os.fsdecode(path),
            hashlib.sha256(f"{file} {size} {time} {decoders[syntax]}".encode()).hexdigest()[:32],
            Indexed(State(size, time, settings.modalities), indexed_instance, patient, key),
        )
        for instance, frames, file, syntax, path, size, time, indexed_instance, patient in rows
    ]
    return sorted(wanted, key=lambda record: (shard_of(record.sop_instance), record.sop_instance))


def _decoders(transfer_syntax: str | None) -> str:
    """Names and versions of the libraries that decode this transfer syntax: decoders differ by a few grey levels."""
    return ", ".join(f"{name} {version(name)}" for name in decoding_libraries(transfer_syntax))


class _Builder:
    """Writes the shards that must change, and the private table beside each."""

    def __init__(self, folder: Path, states: Path, archive: str, size: Images, settings: Archive) -> None:
        self._folder, self._states, self._size = folder, states, size
        self._reader = FrameReader(archive, size.height, size.width, settings.b_mode_only)
        self._seconds = SECONDS + _FRAME_SECONDS * settings.frames_per_cine
        self._chunk = max(1, _CHUNK // settings.frames_per_cine)
        self.changed: set[str] = set()
        """Ids of the files that were found to be others than the index describes."""

    def build(self, wanted: list[_Wanted], log: Log) -> int:
        """Bring every shard to what is `wanted`; returns how many files were decoded."""
        by_shard = {shard: list(group) for shard, group in groupby(wanted, lambda r: shard_of(r.sop_instance))}
        shards = [(n, rows, self._state(n)) for n in range(SHARDS) if not self._holds(n, rows := by_shard.get(n, []))]
        todo = [record for _, rows, state in shards for record in rows if not _is_known(record, state)]
        jobs = (Job(record.path, record.frames, record.indexed.state) for record in todo)
        with Progress("images", len(todo), "files", log) as progress:
            decoded = self._decoded(todo, jobs, progress)
            for shard, rows, state in shards:
                self._write(shard, rows, state, decoded)
        return len(todo)

    def rejected(self) -> Iterator[tuple[str, Rejection]]:
        """The rejected frames of all shards, by their ids."""
        for path in sorted(self._states.glob("*.parquet")):
            table = _states_of(path)
            for row in table.filter(pc.is_valid(table["reason"])).to_pylist():
                yield f"{row['file_id']}:{row['frame']}", Rejection(Reason(row["reason"]), row["detail"])

    def _paths(self, shard: int) -> tuple[Path, Path]:
        return self._folder / shard_name(shard), self._states / shard_name(shard)

    def _state(self, shard: int) -> "_State":
        """What is known of a shard; nothing where its private table is not that of its content."""
        path, state = self._paths(shard)
        table = read_if_intact(state, _states_of)
        if table is None:
            state.unlink(missing_ok=True)
            return {}
        content = (table.schema.metadata or {}).get(b"content", b"").decode()
        return _frames_known(table) if content == (shard_content(path) or "") else {}

    def _holds(self, shard: int, rows: list[_Wanted]) -> bool:
        """Whether a shard is what is wanted already."""
        state = self._state(shard)
        if not state and self._paths(shard)[0].is_file():
            return False
        return len(state) == sum(len(r.frames) for r in rows) and all(_is_known(record, state) for record in rows)

    def _decoded(self, todo: list[_Wanted], jobs: Iterator[Job], progress: Progress) -> Iterator[list[_Outcome]]:
        """The frames of each of `todo`, in order."""
        faults = FaultWatch()
        for record, result in zip(todo, each_in_worker(self._reader, jobs, self._seconds, self._chunk), strict=True):
            faults.note(result)
            outcomes = _outcomes(record, result)
            if CHANGED in outcomes:
                self.changed.add(record.file_id)
            progress.advance()
            yield [
                _Outcome(frame, outcome if isinstance(outcome, Rejection) else _cached(record, frame, outcome))
                for frame, outcome in zip(record.frames, outcomes, strict=True)
            ]

    def _write(self, shard: int, rows: list[_Wanted], state: "_State", decoded: Iterator[list[_Outcome]]) -> None:
        """Replace a shard, then its private table: until then, the old one does not fit the new content."""
        path, state_path = self._paths(shard)
        kept: list[dict[str, object]] = []

        def images() -> Iterator[CachedImage]:
            old = read_shard(path, self._size.height, self._size.width) if state else iter(())
            for record in rows:
                known = _is_known(record, state)
                outcomes = _reused(record, state, old) if known else next(decoded)
                for outcome in outcomes:
                    kept.append(_state_row(record, outcome, state))
                    if isinstance(outcome.result, CachedImage):
                        yield outcome.result

        content = write_shard(path, images(), self._size.height, self._size.width)
        write_table(state_path, pa.Table.from_pylist(kept, _STATE.with_metadata({"content": content or ""})))


@dataclass(frozen=True, slots=True)
class _Known:
    """What an earlier run made of a frame, of which source, and in how many runs that was interrupted."""

    source: str
    rejection: Rejection | None
    tries: int


def _states_of(path: Path) -> pa.Table:
    return read_table(path, _STATE.names)


_State = dict[tuple[str, int], _Known]
"""The frames of a shard by SOP instance and frame number."""


def _frames_known(table: pa.Table) -> _State:
    columns = (table[name].to_pylist() for name in _STATE.names if name != "file_id")
    return {
        (instance, frame): _Known(source, Rejection(Reason(reason), detail) if reason else None, tries)
        for instance, frame, source, reason, detail, tries in zip(*columns, strict=True)
    }


def _is_known(record: _Wanted, state: _State) -> bool:
    """Whether all frames of `record` became what they are from the same source, and would become it again."""
    known = [state.get((record.sop_instance, frame)) for frame in record.frames]
    return all(
        frame and frame.source == record.source and (not frame.rejection or frame.rejection.reason.is_settled)
        for frame in known
    )


def _reused(record: _Wanted, state: _State, old: Iterator[CachedImage]) -> Iterator[_Outcome]:
    """The frames of `record` as they were; `old` yields the shard's images in order and is read as far as needed."""
    for frame in record.frames:
        rejection = state[record.sop_instance, frame].rejection
        if rejection:
            yield _Outcome(frame, rejection)
            continue
        image = next(image for image in old if (image.sop_instance, image.frame) == (record.sop_instance, frame))
        yield _Outcome(frame, image)


def _outcomes(
    record: _Wanted, result: Decoded | list[Image | Rejection] | UnreadableFile | Failed
) -> Sequence[Image | Rejection]:
    """One outcome per selected frame."""
    match result:
        case Decoded():
            return result.images if record.indexed.is_of(result.whose) else [CHANGED] * len(record.frames)
        case list():
            return result
        case UnreadableFile(vanished=False):
            return [Rejection(Reason.UNREADABLE, result.why)] * len(record.frames)
        case UnreadableFile():
            return [Rejection(Reason.STILL_BEING_WRITTEN, "the file vanished")] * len(record.frames)
        case Failed():
            return [result.rejection] * len(record.frames)


def _cached(record: _Wanted, frame: int, image: Image) -> CachedImage:
    return CachedImage(
        record.sop_instance,
        frame,
        image.source_digest,
        image.cropped_by,
        image.row_spacing_mm,
        image.column_spacing_mm,
        image.pixels,
    )


def _state_row(record: _Wanted, outcome: _Outcome, state: _State) -> dict[str, object]:
    """What is kept of `outcome`; a frame that was interrupted in too many runs is over the limits."""
    rejection = outcome.result if isinstance(outcome.result, Rejection) else None
    tries = 0
    if rejection and rejection.reason is Reason.INTERRUPTED:
        before = state.get((record.sop_instance, outcome.frame))
        tries = 1 + (before.tries if before and before.source == record.source else 0)
        rejection = after_tries(rejection, tries)
    return {
        "sop_instance": record.sop_instance,
        "frame": outcome.frame,
        "file_id": record.file_id,
        "source": record.source,
        "reason": rejection and rejection.reason.value,
        "detail": rejection and rejection.detail,
        "tries": tries,
    }


def _opened(builder: _Builder, folder: Path, records: pa.Table, frames: int, decoded: int) -> Cache:
    rows = cached_images(folder)
    patients = records["patient"].take(pc.index_in(rows["sop_instance"], value_set=records["sop_instance"]))
    images = rows.append_column("patient", patients).select(IMAGES.schema.names).cast(IMAGES.schema)
    rejected = rejection_table("frame", builder.rejected()).cast(REJECTED_FRAMES.schema)
    if frames != images.num_rows + rejected.num_rows:
        raise RuntimeError("The ledger of frames does not balance.")
    return Cache(folder, images, rejected, frames, decoded)


def drop_from_caches(root: Path, private: Path, instances: Collection[str]) -> int:
    """Take the images of `instances` (pseudonyms) out of every cache below `root`; returns how many there were.

    A sheet of pictures may show one of them: it goes too, and is drawn again by the next run.
    """
    dropped = 0
    for folder in sorted(path.parent for path in root.glob("*/cache.json")):
        with FileLock(root / f".{folder.name}.lock"):
            for name in ("crop_sheet.png", "contact_sheet.png"):
                (folder / name).unlink(missing_ok=True)
            size = read_if_intact(folder / "cache.json", _size_of)
            if size is None:  # it cannot be told what is there: the next run makes it again
                for path in folder.glob("part-*.parquet"):
                    path.unlink()
                continue
            for shard in sorted({shard_of(instance) for instance in instances}):
                paths = folder / shard_name(shard), private / "cache" / folder.name / shard_name(shard)
                dropped += _drop_from_shard(*paths, size, instances)
    return dropped


def _size_of(path: Path) -> tuple[int, int]:
    described = read_json(path)
    try:
        return int(described["height"]), int(described["width"])
    except (KeyError, TypeError, ValueError):
        raise DamagedError(path) from None


def _drop_from_shard(path: Path, state_path: Path, size: tuple[int, int], instances: Collection[str]) -> int:
    """Take the images out of a shard; one that is damaged goes as a whole, and the next run makes it again."""
    state = read_if_intact(state_path, _states_of)
    if state is None or (state.schema.metadata or {}).get(b"content", b"").decode() != (shard_content(path) or ""):
        for each in (path, state_path):
            each.unlink(missing_ok=True)
        return 0
    images = (image for image in read_shard(path, *size) if image.sop_instance not in instances)
    before = pq.read_metadata(path).num_rows if path.is_file() else 0
    content = write_shard(path, images, *size)
    kept = state.filter(pc.invert(pc.is_in(state["sop_instance"], value_set=pa.array(sorted(instances)))))
    write_table(state_path, kept.replace_schema_metadata({"content": content or ""}))
    return before - (pq.read_metadata(path).num_rows if path.is_file() else 0)


def kept_with_text(images: pa.Table, records: pa.Table) -> list[str]:
    """Files (ids, sorted) of which the header says that text is burned in, and images (IMAGES) were kept whole."""
    instances = images.filter(_has_text_kept(images, records))["sop_instance"]
    return sorted(set(records["file_id"].take(pc.index_in(instances, value_set=records["sop_instance"])).to_pylist()))


def _has_text_kept(images: pa.Table, records: pa.Table) -> pa.ChunkedArray:
    burned_in = records["burned_in"].take(pc.index_in(images["sop_instance"], value_set=records["sop_instance"]))
    return pc.and_(pc.equal(images["cropped_by"], "whole"), burned_in)


def crop_samples(
    images: pa.Table, records: pa.Table, archive: str, private: Path, per_cine: int, count: int
) -> list[Pair]:
    """Before and after of `count` images (IMAGES) spread evenly over the archive, captioned with their file's id.

    They are cut as `build_cache` cuts them where it takes `per_cine` frames of a cine. Those of `kept_with_text` are
    left out: what is written on them would be legible.
    """
    images = images.filter(pc.invert(_has_text_kept(images, records)))
    chosen = images.take(pa.array(range(0, images.num_rows, max(1, -(-images.num_rows // count))), pa.int64()))
    of_images = records.take(pc.index_in(chosen["sop_instance"], value_set=records["sop_instance"]))
    ids = of_images["file_id"]
    known = known_files(private)
    paths = known["path"].take(pc.index_in(ids, value_set=known["file_id"])).to_pylist()
    rows = zip(ids.to_pylist(), paths, chosen["frame"].to_pylist(), of_images["frames"].to_pylist(), strict=True)
    jobs = [
        (file, Job(os.fsdecode(path), tuple(select_frames(frames, per_cine))), frame)
        for file, path, frame, frames in rows
    ]
    seconds = SECONDS + _FRAME_SECONDS * per_cine
    pairs = each_in_worker(CropPreviewReader(normalized(archive)), jobs, seconds)
    return [pair for pair in pairs if isinstance(pair, Pair)]
