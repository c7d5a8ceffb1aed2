"""The store's layout: made, brought up to date however often that is cut short, or refused."""

import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.store import SCHEMA_VERSION, Store


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
    assert version(store) == SCHEMA_VERSION == 3
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
        patch.setattr("pipeline.store.write_json", killed)  # the last of its steps
        with pytest.raises(KeyboardInterrupt):
            store.open()
    assert len(renamed) == done
    assert version(store) == 2
    store.open()
    assert (encoders(store), version(store)) == (MIGRATED, 3)


def test_two_processes_at_once_do_not_trip_over_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one renames each folder after this one has listed it."""
    store = older(tmp_path / "store", "a/resnet50_ce", "b/vgg16_bn_dcm")
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if path.parent.name == "encoders":
            rename(path, target)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    store.open()
    assert list(encoders(store)) == ["a/encoders/resnet50_ce_seed-0", "b/encoders/vgg16_bn_dcm_seed-0"]
    assert version(store) == 3


@pytest.mark.parametrize("layout", [1, 4])
def test_other_layouts_are_refused_and_left_alone(tmp_path: Path, layout: int) -> None:
    store = older(tmp_path / "store", "a/resnet50_ce", version=layout)
    with pytest.raises(UserError, match=f"has layout {layout}, this version of sonotag writes layout 3"):
        store.open()
    assert list(encoders(store)) == ["a/encoders/resnet50_ce"]
