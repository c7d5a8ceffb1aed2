"""The body of every asset's step: an MLflow run around it, and one way to report and to fail."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
import pyarrow as pa
from dagster._core.execution.context.system import StepExecutionContext

from pipeline.blocking_checks import Attempt, Check, attempt, refuse
from pipeline.errors import UserError, is_transient
from pipeline.markdown import link
from pipeline.recipe import Recipe
from pipeline.store import Store
from resources.store import StoreFolder
from resources.tables import current_table
from resources.tracking import TrackedRun, Tracking

Context = dg.AssetExecutionContext
Materializations = Iterator[dg.MaterializeResult[None]]
"""What the function of an asset yields."""

DAGSTER_UI = "http://127.0.0.1:3000"
USER_MISTAKE = "user mistake"
COLUMN_LINEAGE = "dagster/column_lineage"
INFRASTRUCTURE = "infrastructure"
GROUP_TAG = "sonotag/group"
"""The group of an asset without the recipe, which stands before it in Dagster if several are loaded."""
BLOCKING_CHECKS = "sonotag/blocking_checks"
"""Metadata of an asset: the names of its blocking checks that are steps of their own, which a run may leave out."""
WAITS = (30.0, 120.0, 480.0)
"""Delays in seconds before a step is retried after a failure of disk or network."""

FIRST = {"dagster/priority": "10"}
"""For steps that check what a person wrote: they run before the long work."""


class Step:
    """A running step: its store, its log, its MLflow run and its report of results."""

    def __init__(
        self,
        context: Context,
        recipe: Recipe,
        store: Store,
        run: TrackedRun,
        tags: Mapping[str, str],
        recorded: Mapping[tuple[str, str], Check],
        attempt: Attempt,
    ) -> None:
        self._context, self._recipe, self.store, self.run = context, recipe, store, run
        self._recorded, self._attempt = recorded, attempt
        self._keys = {key.path[-1]: key for key in context.assets_def.keys}
        self.tags = tags
        """Of its MLflow run; a run inside of it has them too, so that one tag finds all that a Dagster run did."""

    def log(self, line: str) -> None:
        """A line in Dagster's log."""
        self._context.log.info(line)

    @contextmanager
    def holding(self, lock: AbstractContextManager[None], *inputs: pa.Table) -> Iterator[list[pa.Table]]:
        """Hold `lock`; yields `inputs` as they are in the store then, which may be later than when they were loaded."""
        with lock:
            yield [current_table(rows, self.store, self._recipe) for rows in inputs]

    @contextmanager
    def part(self, tracking: Tracking, name: str) -> Iterator[TrackedRun]:
        """An MLflow run of its own, below the step's, for one of several trainings."""
        with tracking.of(self._recipe.name).run(name, self.tags, self.log, parent=self.run) as run:
            yield run

    def checked(self, result: dg.AssetCheckResult, asset: str) -> dg.AssetCheckResult:
        """The result of a check of `asset`; that of a blocking one is kept in the store, for every later job."""
        check = self._recorded.get((asset, result.check_name or ""))
        if check is not None:
            self._attempt.record(check, lets_pass(result), result.description or "")
        return result._replace(asset_key=self._keys[asset])

    def made(
        self,
        asset: str,
        data_version: str,
        metadata: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        files: Sequence[Path] = (),
        checks: Sequence[dg.AssetCheckResult] = (),
    ) -> dg.MaterializeResult[None]:
        """The asset is made: tell MLflow (`metrics`, `files`) and Dagster (`metadata`, `checks`), linked both ways."""
        self.run.tags({f"data_version.{asset}": data_version})
        self.run.metrics(metrics or {})
        self.run.files(list(files))
        linked = {"MLflow run": named_link("open the run", self.run.url)} if self.run.url else {}
        return dg.MaterializeResult(
            asset_key=self._keys[asset],
            data_version=dg.DataVersion(data_version),
            metadata={**metadata, **self._lineage(asset), **linked},
            check_results=[self.checked(check, asset) for check in checks],
        )

    def _lineage(self, asset: str) -> Mapping[str, Any]:
        """The column lineage of the catalog: Dagster draws what an event says."""
        facts = self._context.assets_def.specs_by_key[self._keys[asset]].metadata
        return {name: facts[name] for name in [COLUMN_LINEAGE] if name in facts}


def named_link(name: str, address: str) -> dg.MarkdownMetadataValue:
    """A link that shows its name: an address is wider than Dagster's page, and pushes everything else out of sight."""
    return dg.MetadataValue.md(link(name, address))


@contextmanager
def step(
    context: Context,
    store: StoreFolder,
    tracking: Tracking,
    recipe: Recipe,
    params: Mapping[str, Any] | None = None,
) -> Iterator[Step]:
    """Run an asset's body inside an MLflow run; errors as in `guarded`.

    If a user's mistake has already failed another step of the run, this one does not start: hours of training are not
    spent on a run that cannot succeed. Nor does it start if a blocking check upstream has not passed, in this run or an
    earlier one.
    """
    execution = context.get_step_execution_context()
    _stop_after_a_mistake(execution, recipe.name)
    versions, run_id = context.assets_def.code_versions_by_key, context.run.run_id
    tags = {
        "recipe": recipe.name,
        "assets": ", ".join(sorted(key.path[-1] for key in versions)),
        "code_version": ", ".join(sorted({str(version) for version in versions.values()})),
        "dagster.run_id": run_id,
        "dagster.job": context.run.job_name,
        "mlflow.note.content": f"[Dagster run]({DAGSTER_UI}/runs/{run_id})",
    }
    recorded, name = _blocking_checks(context), context.op_def.name.removeprefix(f"{recipe.name}__")
    with failing(execution):
        made, opened = _refuse_unchecked(execution, recipe.name), store.open()
        with (
            attempt(opened, recipe.name, made, list(recorded.values())) as recording,
            tracking.of(recipe.name).run(name, tags, context.log.warning) as run,
        ):
            run.params(params or {})
            yield Step(context, recipe, opened, run, tags, recorded, recording)


@contextmanager
def guarded(context: dg.InputContext) -> Iterator[None]:
    """Load an input of a step; refuses as `step`, and reports errors alike.

    A `UserError` fails the step with its sentence and no retry. Faults of disk or network, such as a server that does
    not answer or a full disk, are tried again after each of `WAITS`.
    """
    execution = context.step_context
    with failing(execution):
        if keys := _keys(execution):  # a check examines what is there, whatever has failed
            recipe = next(iter(keys)).path[0]
            _stop_after_a_mistake(execution, recipe)
            _refuse_unchecked(execution, recipe)
        yield


def warning(passed: bool, description: str, check_name: str | None = None, /, **metadata: Any) -> dg.AssetCheckResult:
    """The result of a check that stops nothing."""
    severity = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=passed, check_name=check_name, severity=severity, description=description, metadata=metadata
    )


def none_lost(check_name: str, counts: Mapping[str, int]) -> dg.AssetCheckResult:
    """The result of a check that the first of `counts` is the sum of the others."""
    (whole, total), *parts = counts.items()
    found = ", ".join(f"{count} {part}" for part, count in parts)
    return dg.AssetCheckResult(
        check_name=check_name,
        passed=total == sum(count for _, count in parts),
        description=f"{total} {whole}: {found}",
        metadata=dict(counts),
    )


def _blocking_checks(context: Context) -> dict[tuple[str, str], Check]:
    """The blocking checks of the step's assets, by asset and name: its own, and those that are steps after it."""
    found = [(spec.asset_key, spec.name) for spec in context.assets_def.check_specs if spec.blocking]
    specs = context.assets_def.specs_by_key
    found += [(key, name) for key, spec in specs.items() for name in spec.metadata.get(BLOCKING_CHECKS, "").split()]
    groups = {key: spec.tags.get(GROUP_TAG, spec.group_name or "") for key, spec in specs.items()}
    return {(key.path[-1], name): Check(asset=key.path[-1], check=name, group=groups[key]) for key, name in found}


def lets_pass(result: dg.AssetCheckResult) -> bool:
    """Whether what follows may start after `result` of a blocking check."""
    return result.passed or result.severity != dg.AssetCheckSeverity.ERROR


def _refuse_unchecked(execution: StepExecutionContext, recipe: str) -> set[str]:
    """Raise if a blocking check upstream of the step has not passed; returns the assets that the step makes."""
    graph, keys = execution.job_def.asset_layer.asset_graph, _keys(execution)
    made = {key.path[-1] for key in keys}
    above = {above.path[-1] for key in keys for above in graph.get_ancestor_asset_keys(key)}
    refuse(execution.resources.store.open(), recipe, above - made)
    return made


def _keys(execution: StepExecutionContext) -> Collection[dg.AssetKey]:
    """Of the assets that the step makes; none of a check's step."""
    definition = execution.job_def.asset_layer.get_assets_def_for_node(execution.node_handle)
    return definition.keys if definition else ()


@contextmanager
def failing(execution: StepExecutionContext) -> Iterator[None]:
    """Report errors as `guarded` describes."""
    try:
        yield
    except Exception as error:
        if is_transient(error):
            _try_again(execution, error)
        if isinstance(error, UserError):
            raise dg.Failure(str(error), metadata={USER_MISTAKE: True}, allow_retries=False) from None
        raise


def _try_again(execution: StepExecutionContext, error: Exception) -> NoReturn:
    """Ask for another try, or fail for good after the last one. A system error's own text would quote a path."""
    reason = getattr(error, "strerror", None) or type(error).__name__
    sentence = str(error) if isinstance(error, UserError) else f"Disk or network has failed: {reason}."
    tries = execution.previous_attempt_count
    if tries >= len(WAITS):
        why = f"{sentence} Tried {tries + 1} times."
        raise dg.Failure(why, metadata={INFRASTRUCTURE: reason}, allow_retries=False) from error
    execution.log.warning(f"{sentence} Trying again in {WAITS[tries]:g} s.")
    raise dg.RetryRequested(max_retries=len(WAITS), seconds_to_wait=WAITS[tries]) from error


def _stop_after_a_mistake(execution: StepExecutionContext, recipe: str) -> None:
    """Raise if a user's mistake has failed a step of this recipe's, or a shared one, in this run."""
    failures = execution.instance.all_logs(execution.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    of_recipe = f"{recipe}__"
    several = execution.op_def.name.startswith(of_recipe)
    for entry in failures:
        if several and "__" in str(entry.step_key) and not str(entry.step_key).startswith(of_recipe):
            continue  # another recipe's
        data = entry.get_dagster_event().step_failure_data
        if data.user_failure_data and USER_MISTAKE in data.user_failure_data.metadata:
            raise dg.Failure(f"not started, since {entry.step_key} failed", allow_retries=False)
