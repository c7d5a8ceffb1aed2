"""Builds the image cache from the index: decodes new and changed files, and keeps every other image."""

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

from pipeline.archive.frame_reader import (
    CHANGED,
    SECONDS_PER_FRAME,
    DecodedFile,
    FrameReader,
    FrameRequest,
    Outcome,
)
from pipeline.archive.listing import REJECTION_FIELDS, known_files, unsettle
from pipeline.archive.location import normalized
from pipeline.archive.source import ArchiveFile
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
from pipeline.privacy.identity import pseudonym
from pipeline.progress import Log, Progress, silent
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.tables import IMAGES, REJECTED_FRAMES

_STATE = pa.schema(
    [
        pa.field("sop_instance", pa.string(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        *REJECTION_FIELDS,
        pa.field("tries", pa.int64()),
    ]
)
"""The outcome of a selected frame, in one private table per shard: `reason` is null for an image.

`tries` counts the runs in which decoding this source was interrupted.
"""

_CHUNK = 8  # frames sent to a worker at once, so that a cine's files are spread over the workers


@dataclass(frozen=True)
class Cache:
    """A cache's `folder`, its `images` (IMAGES) and `rejected` frames (REJECTED_FRAMES).

    `frames` were selected; `decoded` files were new or changed.
    """

    folder: Path
    images: pa.Table
    rejected: pa.Table
    frames: int
    decoded: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The selected frames of one record, and the pseudonyms by which the index names its instance and patient.

    `source` is a digest of everything that determines the pixels.
    """

    sop_instance: str
    file_id: str
    source: str
    request: FrameRequest
    identity: tuple[str, str]

    @property
    def frames(self) -> tuple[int, ...]:
        return self.request.frames


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
    """Update the cache of these settings below `root` to `records` (DICOM_INDEX), and return it.

    Decodes only new and changed frames, and rewrites only their shards, each atomically: a killed run loses one shard
    at most. A frame without an image is a row of `rejected`; if its file is not the one in the index, by
    pseudonyms made with `key`, the next index reads that file again. Raises `UnreachableError` if half of the latest
    files fail with transient errors.
    """
    folder = cache_folder(root, images, settings)
    make_folder(root)
    with FileLock(root / f".{folder.name}.lock"):
        make_folder(folder)
        for unfinished in [*folder.glob(".*.tmp"), *(private / "cache" / folder.name).glob(".*.tmp")]:
            unfinished.unlink()  # left by a killed run; the lock excludes other writers
        write_json(folder / "cache.json", cache_description(images, settings))
        wanted = _wanted(records, known_files(private), settings)
        frames = sum(len(record.frames) for record in wanted)
        builder = _Builder(folder, private / "cache" / folder.name, normalized(archive), key, images, settings)
        try:
            decoded = builder.build(wanted, log)
            unsettle(private, builder.changed)
            return _opened(builder, folder, records, frames, decoded)
        except DamagedError as damaged:
            if damaged.path.parent == folder:
                damaged.path.unlink(missing_ok=True)  # the next run writes it again
            raise


def _wanted(records: pa.Table, known: pa.Table, settings: Archive) -> list[_Wanted]:
    """The records' selected frames in the order of the shards."""
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
            file,
            hashlib.sha256(f"{file} {size} {changed} {decoders[syntax]}".encode()).hexdigest()[:32],
            FrameRequest(
                ArchiveFile(os.fsdecode(path), size, changed), tuple(select_frames(frames, settings.frames_per_cine))
            ),
            (indexed_instance, patient),
        )
        for instance, frames, file, syntax, path, size, changed, indexed_instance, patient in rows
    ]
    return sorted(wanted, key=lambda record: (shard_of(record.sop_instance), record.sop_instance))


def _decoders(transfer_syntax: str | None) -> str:
    """Names and versions of the libraries that decode this transfer syntax: decoders differ by a few grey levels."""
    return ", ".join(f"{name} {version(name)}" for name in decoding_libraries(transfer_syntax))


class _Builder:
    """Writes the shards that change, and the private table of each."""

    def __init__(self, folder: Path, states: Path, archive: str, key: bytes, size: Images, settings: Archive) -> None:
        self._folder, self._states, self._size, self._key = folder, states, size, key
        self._reader = FrameReader(archive, settings.modalities, size.height, size.width, settings.b_mode_only)
        self._seconds = SECONDS + SECONDS_PER_FRAME * settings.frames_per_cine
        self._chunk = max(1, _CHUNK // settings.frames_per_cine)
        self.changed: set[str] = set()
        """Ids of files that are not those in the index."""

    def build(self, wanted: list[_Wanted], log: Log) -> int:
        """Update every shard to the frames in `wanted`; returns how many files were decoded."""
        by_shard = {shard: list(group) for shard, group in groupby(wanted, lambda r: shard_of(r.sop_instance))}
        shards = [(n, rows, self._state(n)) for n in range(SHARDS) if not self._holds(n, rows := by_shard.get(n, []))]
        todo = [record for _, rows, state in shards for record in rows if not _is_known(record, state)]
        with Progress("images", len(todo), "files", log) as progress:
            decoded = self._decoded(todo, progress)
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
        """The known outcomes of a shard; none if its private table does not match its content."""
        path, state_path = self._paths(shard)
        table = _read_state(path, state_path)
        return {} if table is None else _frames_known(table)

    def _holds(self, shard: int, rows: list[_Wanted]) -> bool:
        """Whether a shard already has exactly the frames of `rows`."""
        state = self._state(shard)
        if not state and self._paths(shard)[0].is_file():
            return False
        return len(state) == sum(len(r.frames) for r in rows) and all(_is_known(record, state) for record in rows)

    def _decoded(self, todo: list[_Wanted], progress: Progress) -> Iterator[Sequence[Outcome]]:
        """The outcomes of each of `todo`, in order."""
        faults = FaultWatch()
        requests, readable = (record.request for record in todo), [self._reader.archive]
        results = each_in_worker(self._reader, requests, self._seconds, self._chunk, readable)
        for record, result in zip(todo, results, strict=True):
            faults.note(result)
            outcomes = self._outcomes(record, result)
            if CHANGED in outcomes:
                self.changed.add(record.file_id)
            progress.advance()
            yield outcomes

    def _outcomes(
        self, record: _Wanted, result: DecodedFile | Rejection | UnreadableFile | Failed
    ) -> Sequence[Outcome]:
        """One outcome per selected frame."""
        match result:
            case DecodedFile():
                raw = {"sop_instance": result.sop_instance, "patient": result.patient}
                if tuple(pseudonym(self._key, kind, value) for kind, value in raw.items()) == record.identity:
                    return result.outcomes
                rejection = CHANGED
            case UnreadableFile(vanished=True):
                rejection = Rejection(Reason.STILL_BEING_WRITTEN, "the file vanished")
            case UnreadableFile():
                rejection = Rejection(Reason.UNREADABLE, result.why)
            case Failed():
                rejection = result.rejection
            case Rejection():
                rejection = result
        return [rejection] * len(record.frames)

    def _write(self, shard: int, rows: list[_Wanted], state: "_State", decoded: Iterator[Sequence[Outcome]]) -> None:
        """Replace a shard, then its private table, which does not match the new content until then."""
        path, state_path = self._paths(shard)
        kept: list[dict[str, object]] = []

        def images() -> Iterator[CachedImage]:
            old = read_shard(path, self._size.height, self._size.width) if state else iter(())
            for record in rows:
                known = _is_known(record, state)
                outcomes = _reused(record, state, old) if known else next(decoded)
                for frame, outcome in zip(record.frames, outcomes, strict=True):
                    kept.append(_state_row(record, frame, outcome, state))
                    if not isinstance(outcome, Rejection):
                        yield CachedImage(record.sop_instance, frame, outcome)

        content = write_shard(path, images(), self._size.height, self._size.width)
        write_table(state_path, pa.Table.from_pylist(kept, _STATE.with_metadata({"content": content or ""})))


@dataclass(frozen=True, slots=True)
class _Known:
    """The outcome of a frame in an earlier run, its source, and in how many runs decoding was interrupted."""

    source: str
    rejection: Rejection | None
    tries: int


def _states_of(path: Path) -> pa.Table:
    return read_table(path, _STATE.names)


def _read_state(path: Path, state_path: Path) -> pa.Table | None:
    """The private table of the shard at `path`; None if it is missing, damaged, or does not match the content."""
    table = read_if_intact(state_path, _states_of)
    if table is None:
        state_path.unlink(missing_ok=True)  # it is damaged
        return None
    content = (table.schema.metadata or {}).get(b"content", b"").decode()
    return table if content == (shard_content(path) or "") else None


_State = dict[tuple[str, int], _Known]
"""The frames of a shard by SOP instance and frame number."""


def _frames_known(table: pa.Table) -> _State:
    columns = (table[name].to_pylist() for name in _STATE.names if name != "file_id")
    return {
        (instance, frame): _Known(source, Rejection(Reason(reason), detail) if reason else None, tries)
        for instance, frame, source, reason, detail, tries in zip(*columns, strict=True)
    }


def _is_known(record: _Wanted, state: _State) -> bool:
    """Whether all outcomes of `record` come from the same source and are final."""
    known = [state.get((record.sop_instance, frame)) for frame in record.frames]
    return all(
        frame and frame.source == record.source and (not frame.rejection or frame.rejection.reason.is_settled)
        for frame in known
    )


def _reused(record: _Wanted, state: _State, old: Iterator[CachedImage]) -> Iterator[Outcome]:
    """The known outcomes of `record`; `old` yields the shard's images in order."""
    for frame in record.frames:
        rejection = state[record.sop_instance, frame].rejection
        wanted = (record.sop_instance, frame)
        yield rejection or next(cached.image for cached in old if (cached.sop_instance, cached.frame) == wanted)


def _state_row(record: _Wanted, frame: int, outcome: Outcome, state: _State) -> dict[str, object]:
    """A row of _STATE; a frame that was interrupted in too many runs is over the limits."""
    rejection = outcome if isinstance(outcome, Rejection) else None
    tries = 0
    if rejection and rejection.reason is Reason.INTERRUPTED:
        before = state.get((record.sop_instance, frame))
        tries = 1 + (before.tries if before and before.source == record.source else 0)
        rejection = after_tries(rejection, tries)
    return {
        "sop_instance": record.sop_instance,
        "frame": frame,
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
    """Remove the images of `instances` (pseudonyms) from every cache below `root`; returns how many there were.

    Also removes the sheets, which may show one of them; the next run draws them again.
    """
    dropped = 0
    for folder in sorted(path.parent for path in root.glob("*/cache.json")):
        with FileLock(root / f".{folder.name}.lock"):
            for name in ("crop_sheet.png", "contact_sheet.png"):
                (folder / name).unlink(missing_ok=True)
            size = read_if_intact(folder / "cache.json", _size_of)
            if size is None:  # the images are unknown without it; the next run writes them again
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
    """Remove the images from a shard; removes a damaged one completely, and the next run writes it again."""
    state = _read_state(path, state_path)
    if state is None:
        for each in (path, state_path):
            each.unlink(missing_ok=True)
        return 0
    images = (image for image in read_shard(path, *size) if image.sop_instance not in instances)
    before = pq.read_metadata(path).num_rows if path.is_file() else 0
    content = write_shard(path, images, *size)
    kept = state.filter(pc.invert(pc.is_in(state["sop_instance"], value_set=pa.array(sorted(instances)))))
    write_table(state_path, kept.replace_schema_metadata({"content": content or ""}))
    return before - (pq.read_metadata(path).num_rows if path.is_file() else 0)
