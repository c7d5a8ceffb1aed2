"""Index and cache of an archive in a process of its own, so that it can be killed or run out of room.

Belongs here: `python -m tests.pipeline.archive.ingest ARCHIVE STORE [BYTES]`. Not here: expectations.
"""

import resource
import sys
from functools import partial
from pathlib import Path

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.erase import erase_traces
from pipeline.archive.scan import index_archive
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.store import Store
from pipeline.tables import DELETED_FILES, DICOM_INDEX, IMAGES, REJECTED_FILES, REJECTED_FRAMES
from tests.pipeline.archive.synthetic import KEY

SIZE = Images(height=64, width=96)


def main(archive: str, root: str, largest_file: str = "") -> None:
    """Ingest `archive` into the store at `root`; no file may grow over `largest_file` bytes, if given."""
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))
    store, settings = Store(Path(root)).open(), Archive(frames_per_cine=2, description_patients=1)
    index = index_archive(archive, store.private, KEY, settings, erase=partial(erase_traces, store))
    for table, rows in ((DICOM_INDEX, index.records), (REJECTED_FILES, index.rejected), (DELETED_FILES, index.deleted)):
        table.write(store.tables, rows)
    cache = build_cache(index.records, archive, store.private, KEY, store.images, SIZE, settings)
    IMAGES.write(store.experiment("demo").tables, cache.images)
    REJECTED_FRAMES.write(store.experiment("demo").tables, cache.rejected)


if __name__ == "__main__":
    main(*sys.argv[1:])
