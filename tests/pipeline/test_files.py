"""Files appear whole or not at all; different content has different digests."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.files import atomic_replace, digest, write_table, write_text
from pipeline.store import Store
from tests.conftest import ROOT


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_replace(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, sys
from pathlib import Path
from pipeline.files import atomic_replace
with atomic_replace(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_temporary_files_of_killed_writers_are_removed_and_those_of_living_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert [left.suffix for left in tmp_path.iterdir()] == [".tmp"]
    with atomic_replace(path) as slow:
        slow.write_text("slow")
        write_text(path, "quick")
        assert slow.exists()
    assert path.read_text() == "slow" and list(tmp_path.iterdir()) == [path]


def test_equal_tables_have_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", pa.table({"x": [1, 2, 3]}))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_digest_is_sha256_of_canonical_json() -> None:
    assert digest("a", 1) == hashlib.sha256(b'["a",1]').hexdigest()
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest(b"x") != digest(b"y")


def test_a_store_of_another_layout_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).open()
    write_text(tmp_path / "store.json", '{"schema_version": 99}')
    with pytest.raises(UserError, match="layout 99"):
        Store(tmp_path).open()


def test_the_private_folder_is_the_owners_alone(tmp_path: Path) -> None:
    assert Store(tmp_path / "s").open().private.stat().st_mode & 0o077 == 0
