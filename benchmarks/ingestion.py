"""Speed of ingestion compared with plain loops: headers, the image cache of a mixed archive, JPEG cines."""

import io
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset

from benchmarks.archives import cine_archive, copies, mixed_archive
from benchmarks.measure import Row, compare
from pipeline.archive.cache_builder import Cache, build_cache
from pipeline.archive.scan import Index, index_archive
from pipeline.images.cache import load_pixels
from pipeline.privacy.identity import PUBLIC_DEMO_KEY
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images

SIZE = Images(height=256, width=384)
HEADERS, OF_EACH, CINES, LENGTH = 6000, 24, 32, 20


def measure(phantom: Path, work: Path) -> list[Row]:
    """Rows for headers, cache build, JPEG cines and cache reading; `work` is an empty folder."""
    return [_headers(phantom, work / "headers"), *_mixed(phantom, work / "mixed"), _cines(phantom, work / "cines")]


def _headers(phantom: Path, work: Path) -> Row:
    archive = work / "archive"
    paths = copies(phantom, archive, HEADERS)
    fresh = (work / f"private-{number}" for number in count())
    return compare(
        "index a new archive",
        "files",
        HEADERS,
        lambda: index_archive(str(archive), next(fresh), PUBLIC_DEMO_KEY, Archive()),
        lambda: [pydicom.dcmread(path, stop_before_pixels=True) for path in paths],
        "dcmread(stop_before_pixels=True), file by file",
    )


def _mixed(phantom: Path, work: Path) -> list[Row]:
    archive = work / "archive"
    mixed_archive(phantom, archive, OF_EACH)
    index, build = _indexed(archive, work, Archive())
    cache = build()
    images = cache.images.num_rows
    what = "native grey and RGB, JPEG, RLE, JPEG 2000, members of a zip"
    return [
        _row(f"build the image cache of {what}, 256×384", index, cache, archive, build),
        compare(
            "read all images of the cache",
            "images",
            images,
            lambda: load_pixels(cache.folder, cache.images),
            lambda: _decoded(archive),
            "decoding the DICOM files again, as a plain Dataset does",
        ),
    ]


def _cines(phantom: Path, work: Path) -> Row:
    archive = work / "archive"
    cine_archive(phantom, archive, CINES, LENGTH)
    index, build = _indexed(archive, work, Archive(frames_per_cine=LENGTH))
    return _row("build the image cache of JPEG cines, every frame, 256×384", index, build(), archive, build)


def _row(what: str, index: Index, cache: Cache, archive: Path, build: Callable[[], Cache]) -> Row:
    if cache.rejected.num_rows or index.rejected.num_rows:
        raise RuntimeError("The benchmark's archive contains rejected files, so the comparison is invalid.")
    return compare(
        what,
        "images",
        cache.images.num_rows,
        build,
        lambda: _decoded(archive),
        "pixel_array and Image.resize, file by file",
    )


def _indexed(archive: Path, work: Path, settings: Archive) -> tuple[Index, Callable[[], Cache]]:
    """The index of `archive`, and a function that builds a new cache of it."""
    private = work / "private"
    index = index_archive(str(archive), private, PUBLIC_DEMO_KEY, settings)
    roots = (work / f"images-{number}" for number in count())

    def build() -> Cache:
        for state in (private / "cache").rglob("*.parquet"):
            state.unlink()
        return build_cache(index.records, str(archive), private, PUBLIC_DEMO_KEY, next(roots), SIZE, settings)

    return index, build


def _decoded(archive: Path) -> list[np.ndarray]:
    return [
        np.asarray(Image.fromarray(frame).convert("L").resize((SIZE.width, SIZE.height), Image.Resampling.BILINEAR))
        for dataset in _datasets(archive)
        for frame in (dataset.pixel_array if "NumberOfFrames" in dataset else [dataset.pixel_array])
    ]


def _datasets(archive: Path) -> Iterator[Dataset]:
    for path in sorted(archive.rglob("*.*")):
        if path.suffix != ".zip":
            yield pydicom.dcmread(path)
            continue
        with zipfile.ZipFile(path) as opened:
            for name in opened.namelist():
                yield pydicom.dcmread(io.BytesIO(opened.read(name)))
