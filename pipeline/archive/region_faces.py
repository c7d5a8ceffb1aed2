"""Where the headers of some records have the probe's face, read again from the archive.

The image cache does not hold it, and a few files of each probe in the worklist are enough.
"""

import os
from collections.abc import Mapping
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.location import normalized
from pipeline.archive.source import open_file
from pipeline.archive.workers import each_in_worker
from pipeline.dicom.face import Face, face_position
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import outcome_of


def stated_faces(records: pa.Table, known: pa.Table, archive: str) -> Mapping[str, Face]:
    """`face_position` of `records` (DICOM_INDEX) by sop_instance; `known` are the files of the last scan (KNOWN).

    Records without a stated position, and files that cannot be read, are absent.
    """
    paths = known["path"].take(pc.index_in(records["file_id"], value_set=known["file_id"])).to_pylist()
    archive = normalized(archive)
    found = each_in_worker(partial(read_face, archive), paths, readable=[archive])
    return {
        instance: face
        for instance, face in zip(records["sop_instance"].to_pylist(), found, strict=True)
        if face in ("above", "edge", "below")
    }


def read_face(archive: str, path: bytes) -> Face | None:
    """In a worker: `face_position` of the file at `path`; None if it cannot be read."""

    def read() -> Face | None:
        with open_file(archive, os.fsdecode(path)) as file:
            return face_position(PixelFile.open(file).regions)

    found = outcome_of(read)
    return found if isinstance(found, str) else None
