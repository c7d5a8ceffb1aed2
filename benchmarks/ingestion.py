"""Ingestion against plain loops, on the phantom's archive.

Belongs here: headers, building the image cache, reading it. Not here: training.
"""

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from benchmarks.measure import Row, compare
from pipeline.archive.identity import PUBLIC_DEMO_KEY
from pipeline.archive.images import build_cache
from pipeline.archive.scan import index_archive
from pipeline.images.cache import load_pixels
from pipeline.recipe import Archive, Images

SIZE = Images(height=256, width=384)


def measure(phantom: Path, work: Path) -> list[Row]:
    """Rows for headers, cache build and cache reading; `work` is an empty folder."""
    archive, private = phantom / "archive", work / "private"
    index = index_archive(archive, private, PUBLIC_DEMO_KEY)
    paths = [path for path in sorted(archive.rglob("*")) if path.is_file()]
    builds = iter(range(1000))

    def build() -> None:
        fresh = work / f"build-{next(builds)}"
        build_cache(index.records, archive, private, fresh, SIZE, Archive())
        for state in private.glob("cache-*.json"):
            state.unlink()

    cache = build_cache(index.records, archive, private, work / "images", SIZE, Archive())
    return [
        compare(
            "index an archive",
            "files",
            len(paths),
            lambda: index_archive(archive, private, PUBLIC_DEMO_KEY),
            lambda: _headers(paths),
            "dcmread(stop_before_pixels=True), one file after the other",
        ),
        compare(
            "build the image cache, 256×384",
            "images",
            cache.images.num_rows,
            build,
            lambda: _decoded(paths),
            "pixel_array and Image.resize, one file after the other",
        ),
        compare(
            "read all images of the cache",
            "images",
            cache.images.num_rows,
            lambda: load_pixels(cache.folder, cache.images),
            lambda: _decoded(paths),
            "decoding the DICOM files again, as a plain Dataset does",
        ),
    ]


def _headers(paths: list[Path]) -> None:
    for path in paths:
        try:
            pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:
            continue


def _decoded(paths: list[Path]) -> list[np.ndarray]:
    images = []
    for path in paths:
        try:
            pixels = pydicom.dcmread(path).pixel_array
            frame = pixels if pixels.ndim == 2 else pixels[0]
            grey = Image.fromarray(frame).convert("L")
        except Exception:
            continue
        images.append(np.asarray(grey.resize((SIZE.width, SIZE.height), Image.Resampling.BILINEAR)))
    return images
