"""The sources of images: the archive's first-level folders; private, as folders can have people's names."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.files import read_table

_ROOT = b""


def sources_of(pool: pa.Table, private: Path) -> Callable[[], list[bytes]]:
    """A function that reads the source of each image of the table `pool`, in its order."""
    return lambda: top_folders(private, pool["sop_instance"].to_pylist())


def top_folders(private: Path, sop_instances: Sequence[str]) -> list[bytes]:
    """The first folder below the archive's root, of the file of each instance (a pseudonym), in their order.

    Empty for a file in the root itself; a member of a zip counts as the zip. Raises `UserError` if
    the list is missing, or lacks an instance.
    """
    path = private / "scan.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist: only a store that has read the archive (job `ingest`) has sources.")
    known = read_table(path, ["path", "container", "sop_instance", "reason", "deleted"])
    present = pc.and_(pc.is_null(known["reason"]), pc.invert(known["deleted"]))
    records = known.filter(pc.and_(present, pc.is_valid(known["sop_instance"])))
    files = pc.coalesce(records["container"], records["path"]).to_pylist()
    claims = list(zip(records["sop_instance"].to_pylist(), map(_first_folder, files), strict=True))
    folder = dict(reversed(claims))  # of files with one instance the first by path is the record (`scan`)
    strange = sum(instance not in folder for instance in sop_instances)
    if strange:
        raise UserError(f"{path} lacks {strange} images of the pretraining pool: run the job `ingest` again.")
    return [folder[instance] for instance in sop_instances]


def folders_if_known(private: Path, sop_instances: Sequence[str]) -> list[bytes]:
    """As `top_folders`; empty if the store does not know them all, as one copied without its private folder."""
    try:
        return top_folders(private, sop_instances)
    except UserError:
        return []


def _first_folder(file: bytes) -> bytes:
    """Of a path relative to the archive's root."""
    first, separator, _ = file.partition(b"/")
    return first if separator else _ROOT
