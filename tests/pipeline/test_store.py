"""The store's layout: made, brought up to date however often that is cut short, or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.scan import index_archive
from pipeline.errors import UserError
from pipeline.files import atomic_replace
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.store import SCHEMA_VERSION, Store
from pipeline.tables import DICOM_INDEX
from pipeline.training.tensors import write_tensors
from tests.pipeline.archive.synthetic import KEY, noise, write_dicom


def older(root: Path, *encoders: str, version: int = 2) -> Store:
    """A store of another layout, with encoders (`recipe/folder`), each with its outcome."""
    for encoder in encoders:
        recipe, name = encoder.split("/")
        folder = root / "experiments" / recipe / "encoders" / name
        folder.mkdir(parents=True)
        (folder / "outcome.json").write_text(encoder)
    root.mkdir(exist_ok=True)
    (root / "store.json").write_text(json.dumps({"schema_version": version}))
    return Store(root)


def encoders(store: Store) -> dict[str, str]:
    found = sorted(store.root.glob("experiments/*/encoders/*/outcome.json"))
    return {path.parent.relative_to(store.root / "experiments").as_posix(): path.read_text() for path in found}


def version(store: Store) -> int:
    stated: int = json.loads((store.root / "store.json").read_text())["schema_version"]
    return stated


MIGRATED = {
    "a/encoders/resnet50_ce_dcm_seed-0": "a/resnet50_ce_dcm",
    "a/encoders/resnet50_ce_seed-0": "a/resnet50_ce",
    "b/encoders/vgg16_bn_dcm_seed-0": "b/vgg16_bn_dcm",
}


def test_encoders_of_layout_2_get_the_seed_that_they_have(tmp_path: Path) -> None:
    store = older(tmp_path / "store", "a/resnet50_ce", "a/resnet50_ce_dcm", "b/vgg16_bn_dcm").open()
    assert encoders(store) == MIGRATED
    assert version(store) == SCHEMA_VERSION == 4
    assert store.experiment("a").encoder("resnet50", "ce", 0).is_dir()
    store.open()
    assert encoders(store) == MIGRATED


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_step_that_was_killed_is_finished_by_the_next_process(
    tmp_path: Path, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = older(tmp_path / "store", "a/resnet50_ce", "a/resnet50_ce_dcm", "b/vgg16_bn_dcm")
    rename, renamed = Path.rename, []

    def dying(path: Path, target: Path) -> Path:
        if len(renamed) == done:
            raise KeyboardInterrupt
        renamed.append(path)
        return rename(path, target)

    def killed(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        patch.setattr("pipeline.store.write_mirrored_json", killed)  # the last of its steps
        with pytest.raises(KeyboardInterrupt):
            store.open()
    assert len(renamed) == done
    assert version(store) == 2
    store.open()
    assert (encoders(store), version(store)) == (MIGRATED, 4)


@pytest.mark.parametrize("layout", [1, 5])
def test_other_layouts_are_refused_and_left_alone(tmp_path: Path, layout: int) -> None:
    store = older(tmp_path / "store", "a/resnet50_ce", version=layout)
    with pytest.raises(UserError, match=f"has layout {layout}, .* writes layout 4"):
        store.open()
    assert list(encoders(store)) == ["a/encoders/resnet50_ce"]


def others_may(folder: Path) -> list[str]:
    """What in `folder`, and itself, anybody but its owner may read, write or enter."""
    everything = [folder, *folder.rglob("*")]
    return [str(path.relative_to(folder)) for path in everything if path.lstat().st_mode & 0o077]


@pytest.fixture
def open_umask():
    """The umask gives everybody access to new files, unless the code restricts it."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_store_s_files_are_accessible_to_the_user_alone_under_any_umask(tmp_path):
    write_dicom(tmp_path / "archive" / "x.dcm", noise(32, 64))
    store, settings = Store(tmp_path / "below" / "store").open(), Archive(description_patients=1)
    index = index_archive(str(tmp_path / "archive"), store.private, KEY, settings)
    DICOM_INDEX.write(store.tables, index.records)
    size = Images(height=32, width=64)
    build_cache(index.records, str(tmp_path / "archive"), store.private, KEY, store.images, size, settings)
    write_tensors(store.experiment("x").root / "encoders" / "a" / "encoder.safetensors", {"a": torch.zeros(2)})
    with atomic_replace(store.root / "made" / "anew") as temporary:
        temporary.unlink()
        temporary.write_text("x")
    locks = {path for path in others_may(tmp_path / "below") if path.endswith(".lock")}
    assert set(others_may(tmp_path / "below")) - locks == set()


@pytest.mark.usefixtures("open_umask")
def test_an_older_store_is_closed_to_others_when_it_is_opened_and_links_in_it_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("x")
    store = Store(tmp_path / "store").open()
    store.root.chmod(0o755)
    (store.root / "mlflow" / "artifacts").mkdir(parents=True)
    (store.root / "mlflow" / "artifacts" / "file").write_text("x")
    (store.root / "mlflow" / "run.sh").write_text("x")
    (store.root / "mlflow" / "run.sh").chmod(0o755)
    (store.root / "link").symlink_to(outside)
    store.open()
    assert others_may(store.root) == ["link"] and outside.stat().st_mode & 0o777 == 0o666
    assert (store.root / "mlflow" / "run.sh").stat().st_mode & 0o777 == 0o700


@pytest.mark.integration
def test_a_command_and_dagster_s_definitions_keep_what_libraries_write_from_others(tmp_path):
    ask = "import os; os.umask(0); {}; print(oct(os.umask(0)))"
    for code in (
        "from pipeline.archive.__main__ import main; main(['locate', 'x'])",
        "import assets.definitions",
    ):
        environment = {**os.environ, "SONOTAG_STORE": str(tmp_path / "store"), "SONOTAG_RECIPE": "demo"}
        done = subprocess.run(
            [sys.executable, "-c", ask.format(code)], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "0o77"
