"""A store that an earlier version wrote (layout 3) is brought to today's layout, whole or not at all.

`layout_3.tar.xz` holds what the commit be5139a wrote for two recipes with synthetic images: `strict` ran `ingest` and
`pretrain`, then `masked` ran `ingest`, so that the tables were its own. Weights and the private scan are left out.
"""

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from pipeline import migration
from pipeline import store as store_module
from pipeline.blocking_checks import POOL, refuse, refuse_training
from pipeline.errors import UserError
from pipeline.recipe import Recipe
from pipeline.store import SCHEMA_VERSION, Store
from pipeline.tables import read_pool

SHARED = {"dicom_index", "rejected_files", "deleted_files", "patient_splits"}
OF_RECIPES = {
    *("images", "rejected_frames", "near_duplicates", "quarantine", "weak_labels", "label_changes"),
    *("unmapped_descriptions", "pretraining_pool"),
}
SIZE = {"height": 32, "width": 64}
MASKED = Recipe.model_validate(
    {
        "name": "masked",
        "images": SIZE,
        "archive": {"description_patients": 1},
        "labels": {"missing": "mask", "sources": [{"kind": "probe"}]},
    }
)
STRICT = MASKED.model_copy(update={"name": "strict", "labels": MASKED.labels.model_copy(update={"missing": "exclude"})})


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The store as the earlier version left it, a mapping and a picture for the reviewer among it."""
    root = tmp_path / "store"
    with tarfile.open(Path(__file__).parent / "layout_3.tar.xz") as archive:
        archive.extractall(root, filter="data")
    (root / "private" / "study_groups.json").write_text('{"US LIVER": ["liver"]}')
    (root / "private" / "near_duplicates").mkdir()
    (root / "private" / "near_duplicates" / "archive.csv").write_text("pair\n")
    return root


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.parquet")}


def test_each_table_goes_to_the_recipe_that_wrote_it_byte_by_byte(earlier: Path) -> None:
    before = files(earlier)
    store = Store(earlier).open()
    assert names(store.tables) == SHARED
    assert names(store.experiment("masked").tables) == OF_RECIPES
    assert names(store.experiment("strict").tables) == set()
    after = files(earlier)
    for name in SHARED:
        assert after[f"tables/{name}.parquet"] == before[f"tables/{name}.parquet"]
    for name in OF_RECIPES:
        assert after[f"experiments/masked/tables/{name}.parquet"] == before[f"tables/{name}.parquet"]
    assert json.loads(after["store.json"]) == json.loads(after["store.copy.json"]) == {"schema_version": 4}
    assert SCHEMA_VERSION == 4


def test_finished_encoders_and_the_split_stay_as_they_are(earlier: Path) -> None:
    before = files(earlier)
    Store(earlier).open()
    after = files(earlier)
    kept = [name for name in before if name.startswith(("experiments/", "private/sides", "private/training_sets"))]
    assert len(kept) >= 6 and "experiments/strict/encoders/resnet50_imagenet_seed-0/outcome.json" in kept
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_worklist_mapping_and_pairs_go_to_the_recipes_private_folder(earlier: Path) -> None:
    before = files(earlier)
    store = Store(earlier).open()
    for name in ("unmapped_descriptions.csv", "study_groups.json", "near_duplicates/archive.csv"):
        assert (store.private_of("masked") / name).read_bytes() == before[f"private/{name}"]
        assert not (store.private / name).exists()


def test_the_pool_is_its_recipes_alone_and_may_be_trained_on_since_its_checks_came_with_it(earlier: Path) -> None:
    store = Store(earlier).open()
    assert read_pool(store, MASKED).num_rows == 16
    refuse_training(store, MASKED)
    with pytest.raises(UserError, match=r"experiments/strict/tables/pretraining_pool\.parquet does not exist"):
        read_pool(store, STRICT)
    pool = store.experiment("masked").tables / "pretraining_pool.parquet"
    pq.write_table(pq.read_table(pool).slice(1), pool)
    with pytest.raises(UserError, match=f"{POOL} has changed"):
        refuse_training(store, MASKED)


def test_results_of_checks_are_a_recipes_and_those_of_the_index_shared(earlier: Path) -> None:
    before = files(earlier)
    store = Store(earlier).open()
    assert {path.name for path in store.checks.iterdir()} == {"dicom_index.no_file_lost.json"}
    for recipe in ("strict", "masked"):
        found = {path.name for path in store.experiment(recipe).checks.iterdir()}
        had = {name.split("/")[-1] for name in before if name.startswith(f"checks/{recipe}/")}
        assert found == had - {"dicom_index.no_file_lost.json"} and len(found) == 6


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_check_that_did_not_pass_still_stops_its_recipe_and_no_other(earlier: Path) -> None:
    change(earlier / "checks/strict/pretraining_pool.no_identifier_exposed.json", result="failed")
    store = Store(earlier).open()
    refuse_training(store, MASKED)
    with pytest.raises(UserError, match="no_identifier_exposed of pretraining_pool did not pass"):
        refuse_training(store, STRICT)


@pytest.mark.parametrize(("of_now", "stops"), [(True, True), (False, False)])
def test_of_two_recipes_results_on_the_index_a_failed_one_counts_if_it_is_of_the_index_of_now(
    earlier: Path, of_now: bool, stops: bool
) -> None:
    index = sha256((earlier / "tables/dicom_index.parquet").read_bytes()).hexdigest()
    failed = earlier / "checks/strict/dicom_index.no_file_lost.json"
    looked_at = {"tables/dicom_index.parquet": index if of_now else "0" * 64}
    change(failed, result="failed", looked_at=looked_at, at="2100-01-01T00:00:00+00:00")
    store = Store(earlier).open()
    if stops:
        with pytest.raises(UserError, match="no_file_lost of dicom_index did not pass"):
            refuse(store, "masked", {"dicom_index"})
    else:
        refuse(store, "masked", {"dicom_index"})


def test_a_check_that_was_under_way_when_its_process_died_has_not_finished(earlier: Path) -> None:
    check = {"asset": "weak_labels", "check": "label_space_unchanged", "group": "labels"}
    note = earlier / "checks/masked/under_way/0123.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"checks": [check], "states": {"tables/weak_labels.parquet": [1, 2]}}))
    store = Store(earlier).open()
    with pytest.raises(UserError, match="label_space_unchanged of weak_labels has not finished"):
        refuse_training(store, MASKED)
    refuse_training(store, STRICT)


def test_a_damaged_result_of_a_check_still_stops_its_recipe(earlier: Path) -> None:
    (earlier / "checks/strict/dicom_index.no_file_lost.json").write_text("{")
    (earlier / "checks/masked/image_cache.cache_intact.json").write_text("[]")
    store = Store(earlier).open()
    for recipe, name in ((STRICT, "dicom_index.no_file_lost"), (MASKED, "image_cache.cache_intact")):
        with pytest.raises(UserError, match=rf"{name}\.json is damaged"):
            refuse_training(store, recipe)


def unnamed(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("spoil", [unnamed, halved, Path.unlink])
def test_a_table_without_a_known_recipe_is_not_copied(earlier: Path, spoil: Callable[[Path], None]) -> None:
    spoil(earlier / "tables" / "images.parquet")
    store = Store(earlier).open()
    lost = {"images", "rejected_frames", "near_duplicates", "quarantine", "unmapped_descriptions"}
    assert names(store.experiment("masked").tables) == OF_RECIPES - lost
    assert names(store.tables) == SHARED


def test_tables_of_two_recipes_go_to_their_recipe_and_tables_derived_from_both_are_not_copied(earlier: Path) -> None:
    path = earlier / "tables" / "weak_labels.parquet"
    rows = pq.read_table(path)
    made_by = json.loads(rows.schema.metadata[b"sonotag.made_by"]) | {"recipe": "strict"}
    pq.write_table(rows.replace_schema_metadata({b"sonotag.made_by": json.dumps(made_by)}), path)
    store = Store(earlier).open()
    assert names(store.experiment("strict").tables) == {"weak_labels", "label_changes"}
    assert names(store.experiment("masked").tables) == {
        *("images", "rejected_frames", "near_duplicates", "pretraining_pool"),
    }


class Killed(BaseException):
    """What stops a process at once."""


def dies_at(step: int) -> Callable[[str, Path], None]:
    """A count of steps that ends at `step`, as a process that is killed before that step."""
    calls = iter(range(step))

    def counted(_: str, __: Path) -> None:
        if next(calls, None) is None:
            raise Killed

    return counted


@pytest.mark.integration
def test_a_migration_that_is_killed_anywhere_leaves_the_earlier_layout_whole_or_is_finished_by_the_next(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, whole = files(earlier), tmp_path / "whole"
    shutil.copytree(earlier, whole)
    Store(whole).open()
    migrated, step = files(whole), 0
    while True:
        root = tmp_path / f"killed-{step}"
        shutil.copytree(earlier, root)
        with monkeypatch.context() as patch:
            count = dies_at(step)
            for module, name in (
                *((migration, n) for n in ("_copy", "write_json")),
                *((store_module, n) for n in ("write_mirrored_json", "clear")),
            ):
                patch.setattr(module, name, _after(count, name, getattr(module, name)))
            patch.setattr(Path, "unlink", _after(count, "unlink", Path.unlink))
            try:
                Store(root).open()
            except Killed:
                left = files(root)
                if json.loads(left["store.json"])["schema_version"] == 3:
                    assert before.items() <= left.items(), "the earlier version goes on with what it had"
            else:
                break
        Store(root).open()
        assert files(root) == migrated, f"killed before step {step}"
        shutil.rmtree(root)
        step += 1
    assert step > 20


def _after(count: Callable[[str, Path], None], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def counted(path: Path, *more: Any, **options: Any) -> Any:
        if name != "unlink" or path.suffix in {".parquet", ".csv"}:
            count(name, path)
        return real(path, *more, **options)

    return counted


@pytest.mark.parametrize("lock", ["training", "archive", "tables"])
def test_a_store_in_which_the_earlier_version_is_at_work_is_refused_and_left_alone(earlier: Path, lock: str) -> None:
    before = files(earlier)
    (earlier / "locks").mkdir(exist_ok=True)
    with FileLock(earlier / "locks" / f"{lock}.lock"), pytest.raises(UserError, match=f"{lock}.lock"):
        Store(earlier).open()
    assert files(earlier) == before
    Store(earlier).open()
    assert names(Store(earlier).tables) == SHARED


def test_several_processes_migrate_a_store_once_and_without_errors(earlier: Path) -> None:
    """Each then takes the archive's lock, as a step of a job does, while others may still wait for the first."""
    code = (
        "import sys, time; from pathlib import Path; from filelock import FileLock; from pipeline.store import Store\n"
        "with FileLock(Store(Path(sys.argv[1])).open().locks / 'archive.lock'): time.sleep(0.2)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(earlier)], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert names(Store(earlier).tables) == SHARED and names(Store(earlier).experiment("masked").tables) == OF_RECIPES


def test_a_store_of_today_is_not_touched_again(earlier: Path) -> None:
    store = Store(earlier).open()
    (store.private / "near_duplicates").mkdir()
    (store.private / "near_duplicates" / "mine.txt").write_text("x")
    before = files(earlier)
    store.open()
    assert files(earlier) == before


def test_a_command_migrates_an_existing_store_and_creates_none(earlier: Path, tmp_path: Path) -> None:
    assert names(Store(earlier).up_to_date().tables) == SHARED
    Store(tmp_path / "nowhere").up_to_date()
    assert not (tmp_path / "nowhere").exists()
