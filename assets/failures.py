"""Tags of a failed run: which step, why, which file, what to do; a file is named by its id, never its path."""

import re

import dagster as dg

from assets.step import INFRASTRUCTURE, USER_MISTAKE

STEP, KIND, FILE, TODO = (f"sonotag/failed_{what}" for what in ("step", "because", "file", "todo"))
_FILE_ID = re.compile(r"\bf_[0-9a-f]{16}\b")
_AGAIN = "then launch the job again: it resumes where it stopped."


@dg.failure_hook(name="leave_summary")
def _leave_summary(context: dg.HookContext) -> None:
    """Tag the run with what failed first; later failures are not reported."""
    run = context.instance.get_run_by_id(context.run_id)
    error = context.op_exception
    if run is None or STEP in run.tags or error is None:
        return
    context.instance.add_run_tags(context.run_id, {STEP: context.step_key, **summary(error)})


HOOKS = {_leave_summary}
"""For every asset: `hooks=HOOKS`."""


def summary(error: BaseException) -> dict[str, str]:
    """Tags that say why a step failed with `error`, and what to do."""
    kind, todo = _kind(error)
    named = _FILE_ID.search(_text(error))
    if named is None:
        return {KIND: kind, TODO: todo}
    locate = f"`python -m pipeline.archive locate {named[0]}` prints, on this machine alone, which file that is."
    return {KIND: kind, FILE: named[0], TODO: f"{todo} {locate}"}


def _kind(error: BaseException) -> tuple[str, str]:
    metadata = error.metadata if isinstance(error, dg.Failure) else {}
    name = type(error).__name__
    if USER_MISTAKE in metadata:
        return "mistake", f"Fix the problem in the run's first red line, {_AGAIN}"
    if INFRASTRUCTURE in metadata:
        return f"disk or network: {metadata[INFRASTRUCTURE].value}", f"Check that disk and network work, {_AGAIN}"
    if isinstance(error, dg.DagsterExecutionInterruptedError | KeyboardInterrupt):
        return "stopped", "The run was stopped. Launch the job again: it resumes where it stopped."
    if name == "DagsterAssetCheckFailedError":
        failed = " ".join(str(error).split(":", 1)[-1].split())
        return f"check failed: {failed}", "Look at that check's metadata under its asset; what depends on it waits."
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "out of memory", f"Free memory, or take a smaller batch_size in the recipe, {_AGAIN}"
    return f"unforeseen: {name}", "Look at the stack in the step's log, and report it if launching again fails too."


def _text(error: BaseException) -> str:
    return str(error.description) if isinstance(error, dg.Failure) else str(error)
