"""Files that appear whole or not at all, and digests of what they hold.

Belongs here: atomic writing, hashing, a picture as a URL, one way to read and write a Parquet table. Not here: what a
table means.
"""

import base64
import glob
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place, on error it is removed.

    A reader sees the old file or the new one, never a half-written one, also after `kill -9`; what a process that was
    killed has left beside `path` is cleared away by the next one that writes there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(path)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # a store on a network has writers elsewhere


def _clear_abandoned(path: Path) -> None:
    """Remove temporary files for `path` whose writer, a process of this machine, is no more."""
    for other in path.parent.glob(f".{glob.escape(path.name)}.{_HOST}-*-*.tmp"):
        writer = other.name.rsplit("-", 2)[1]
        if writer.isdecimal() and not _is_alive(int(writer)):
            other.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_table(path: Path, table: "pa.Table") -> None:
    """Write `table` to `path` as Parquet (zstd), whole or not at all; the same rows give the same bytes."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - the definitions are loaded without it

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """Read the Parquet table at `path`, memory-mapped; of its columns `columns` alone, where they are given."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    return pq.read_table(path, columns=columns and list(columns), memory_map=True)


def data_url(path: Path) -> str:
    """The PNG at `path` as a URL that holds it."""
    return png_url(path.read_bytes())


def png_url(png: bytes) -> str:
    """The bytes of a PNG as a URL that holds them."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of `parts` as canonical JSON; bytes count by their own hash. Same parts, same digest."""

    def plain(value: Any) -> str:
        return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)

    text = json.dumps(parts, sort_keys=True, default=plain, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
