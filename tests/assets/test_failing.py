"""A step that fails: what is tried again, what is not, and what the run then tells a person."""

import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import step as step_module
from assets.definitions import build_defs
from assets.failures import FILE, HOOKS, KIND, STEP, TODO
from assets.step import step
from pipeline.errors import UnreachableError, UserError
from pipeline.recipe import Recipe
from resources.environment import read_environment
from resources.store import StoreFolder
from resources.tracking import Tracking
from tests.conftest import TINY_RECIPE

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("mlflow")
    return Tracking(
        uri=f"sqlite:///{folder}/mlflow.db",
        artifacts=str(folder),
        experiment="e",
        lock_file=str(folder / "lock"),
        pending=str(folder / "unsent"),
    )


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setattr(step_module, "WAITS", (0.01, 0.02, 0.04))
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def resources_of(tracking: Tracking) -> dict[str, Any]:
    return {"store": StoreFolder(root=f"{tracking.artifacts}/store"), "tracking": tracking}


def run(
    instance: dg.DagsterInstance, work: Callable[[], Any], tracking: Tracking, **more: Any
) -> dg.ExecuteInProcessResult:
    """Materialize an asset that does `work` in a step like all others."""

    @dg.asset(hooks=HOOKS, **more)
    def image_cache(context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking) -> Iterator[Any]:
        with step(context, store, tracking, Recipe(name="tiny")) as here:
            checks = work()
            yield here.made("image_cache", "1", {}, checks=checks or [])

    @dg.asset(deps=[image_cache], hooks=HOOKS)
    def downstream() -> None: ...

    return dg.materialize(
        [image_cache, downstream], instance=instance, resources=resources_of(tracking), raise_on_error=False
    )


def tries(result: dg.ExecuteInProcessResult) -> int:
    kinds = [event.event_type for event in result.all_events if event.step_key == "image_cache"]
    return kinds.count(dg.DagsterEventType.STEP_START) + kinds.count(dg.DagsterEventType.STEP_RESTARTED)


def tags(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> dict[str, str]:
    tagged = instance.get_run_by_id(result.run_id)
    assert tagged is not None
    return {key: value for key, value in tagged.tags.items() if key.startswith("sonotag/")}


def test_a_full_disk_that_gets_room_costs_a_try_and_not_the_run(
    instance: dg.DagsterInstance, tmp_path: Path, tracking: Tracking
) -> None:
    place, attempts = tmp_path / "table", []
    place.symlink_to("/dev/full")  # whatever is written there: no space left on device

    def write() -> None:
        attempts.append(1)
        if len(attempts) == 3:
            place.unlink()
        with open(place, "wb", buffering=0) as file:
            file.write(b"rows")

    result = run(instance, write, tracking)
    assert result.success
    assert tries(result) == 3
    assert place.read_bytes() == b"rows"
    assert tags(instance, result) == {}


def test_a_disk_that_stays_full_is_given_up_and_says_so(
    instance: dg.DagsterInstance, tmp_path: Path, tracking: Tracking
) -> None:
    place = tmp_path / "MUELLER^ANNA"
    place.symlink_to("/dev/full")

    def write() -> None:
        with open(place, "wb", buffering=0) as file:
            file.write(b"rows")

    result = run(instance, write, tracking)
    assert not result.success
    assert tries(result) == 4
    left = tags(instance, result)
    assert left[STEP] == "image_cache"
    assert left[KIND] == "disk or network: No space left on device"
    assert "launch the job again" in left[TODO]
    (failure,) = result.get_step_failure_events()
    assert "Tried 4 times" in failure.step_failure_data.user_failure_data.description


def test_a_step_that_fails_between_two_of_its_assets_is_done_again_whole(
    instance: dg.DagsterInstance, tmp_path: Path, tracking: Tracking
) -> None:
    place = tmp_path / "table"
    place.symlink_to("/dev/full")

    @dg.multi_asset(specs=[dg.AssetSpec("records"), dg.AssetSpec("rejected")], hooks=HOOKS)
    def both(context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking) -> Iterator[Any]:
        with step(context, store, tracking, Recipe(name="tiny")) as here:
            yield here.made("records", "1", {})
            if context.retry_number:
                place.unlink()
            with open(place, "wb", buffering=0) as file:
                file.write(b"rows")
            yield here.made("rejected", "1", {})

    result = dg.materialize([both], instance=instance, resources=resources_of(tracking), raise_on_error=False)
    assert result.success
    assert [m.asset_key.path[-1] for m in result.asset_materializations_for_node("both")][-2:] == [
        "records",
        "rejected",
    ]


def test_a_server_that_refuses_is_tried_again(instance: dg.DagsterInstance, tracking: Tracking) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again: nobody listens there

    def ask() -> None:
        socket.create_connection(("127.0.0.1", port), timeout=5)

    assert tries(run(instance, ask, tracking)) == 4


def test_an_archive_that_does_not_answer_is_tried_again(instance: dg.DagsterInstance, tracking: Tracking) -> None:
    def read() -> None:
        raise UnreachableError("Archive file f_0123456789abcdef cannot be read: Input/output error.")

    result = run(instance, read, tracking)
    assert tries(result) == 4
    assert tags(instance, result)[FILE] == "f_0123456789abcdef"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("Recipe /home/mueller/r.yaml: epochs: no such field."), "mistake"),
        (ValueError("a header that MUELLER^ANNA sent"), "unforeseen: ValueError"),
        (KeyError("/archive/MUELLER^ANNA"), "unforeseen: KeyError"),
        (PermissionError(errno.EACCES, "Permission denied", "/archive/MUELLER^ANNA"), "unforeseen: PermissionError"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/archive/MUELLER^ANNA"), "unforeseen: FileNotFoundError"),
        (OSError("Couldn't deserialize thrift"), "unforeseen: OSError"),  # pyarrow on a broken file
        (MemoryError(), "out of memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_mistake_bad_data_and_a_bug_are_not_tried_again(
    instance: dg.DagsterInstance, tracking: Tracking, error: Exception, kind: str
) -> None:
    def work() -> None:
        raise error

    result = run(instance, work, tracking)
    assert tries(result) == 1
    left = tags(instance, result)
    assert left[KIND] == kind
    assert set(left) == {STEP, KIND, TODO}
    assert "MUELLER" not in json.dumps(left) and "mueller" not in json.dumps(left)


def test_a_mistake_about_a_file_names_its_id_and_how_to_find_it(
    instance: dg.DagsterInstance, tracking: Tracking
) -> None:
    def work() -> None:
        raise UserError("Archive file f_0123456789abcdef cannot be read: Permission denied.")

    left = tags(instance, run(instance, work, tracking))
    assert left[FILE] == "f_0123456789abcdef"
    assert "python -m pipeline.archive locate f_0123456789abcdef" in left[TODO]


def test_a_blocking_check_that_fails_is_named(instance: dg.DagsterInstance, tracking: Tracking) -> None:
    failed = [dg.AssetCheckResult(check_name="no_frame_lost", asset_key="image_cache", passed=False)]
    check = dg.AssetCheckSpec("no_frame_lost", asset="image_cache", blocking=True)
    result = run(instance, lambda: failed, tracking, check_specs=[check])
    assert not result.success
    left = tags(instance, result)
    assert left[KIND] == "check failed: image_cache: no_frame_lost"
    assert left[STEP] == "image_cache"


def test_what_fails_first_is_told_and_not_what_fails_in_its_wake(
    instance: dg.DagsterInstance, tracking: Tracking
) -> None:
    def mistake() -> None:
        raise UserError("The mapping is empty.")

    @dg.asset(hooks=HOOKS)
    def another(context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking) -> None:
        with step(context, store, tracking, Recipe(name="tiny")):
            pass

    @dg.asset(hooks=HOOKS, op_tags={"dagster/priority": "10"})
    def first(context: dg.AssetExecutionContext, store: StoreFolder, tracking: Tracking) -> None:
        with step(context, store, tracking, Recipe(name="tiny")):
            mistake()

    result = dg.materialize([another, first], instance=instance, resources=resources_of(tracking), raise_on_error=False)
    assert len(result.get_step_failure_events()) == 2
    assert tags(instance, result)[STEP] == "first"


def test_every_asset_and_check_carries_the_hook(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY_RECIPE, encoding="utf-8")
    definitions = build_defs(
        read_environment({"SONOTAG_STORE": str(tmp_path / "store"), "SONOTAG_RECIPE": str(recipe)})
    )
    lacking = [step.op.name for step in (*definitions.assets, *definitions.asset_checks) if not step.hook_defs >= HOOKS]
    assert lacking == []
