"""Children: workflows that a workflow starts, each exactly once, and whose outcomes the parent waits for.

The child's id follows from the parent's id and the key of the operation. One statement writes the child's row and the
parent's record of the start: both exist, or neither. From then on the child is a workflow like any other, with streams,
records and an owner of its own. The parent records the child's outcome, too, so that a replay does not ask for it.

Ids are free, so an unrelated workflow may already have the id that a child is to get. It is not taken for the child:
the parent is parked, now and in each replay. With an id that the author gives, the workflow of that id is meant.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow._records import keys
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.recorded_values import failure, load
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.execution.waits import Waiting, deadlock
from dbosflow._runtime.operations.child_starts import ChildStart
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.operations.plain_calls import run_plainly_async
from dbosflow._runtime.replay.branch import Branch
from dbosflow._runtime.runs.durable_waits import DurableWait
from dbosflow._runtime.runs.entries import Ending, Record
from dbosflow._runtime.runs.start_request import StartRequest
from dbosflow.errors import (
    DeadlockError,
    ThreadLimitError,
    WorkflowBlockedError,
    WorkflowCancelledError,
    WorkflowConflictError,
    WorkflowFailedError,
)
from dbosflow.failures import dump_error, load_error
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._store.workflow import Outcome
    from dbosflow.definitions import WorkflowDef
    from dbosflow.types import WorkflowInfo

_RESULT = RecordKind.RESULT


async def run_child(definition: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Starts a child of the branch that awaits this, and waits for its result."""
    branch = current_scope()
    if not isinstance(branch, Branch):  # carried out of the workflow, or into a step
        return await run_plainly_async(definition, args, kwargs)
    child_id, ending = await _start_child(branch, StartRequest(definition, args, kwargs), is_awaited=True)
    return await wait_for_result(branch, child_id, definition, ending)


async def start_child(branch: RunBranch, request: StartRequest) -> str:
    """Starts a child; returns its id. The child and the parent's record of the start are durable by then."""
    child_id, _ = await _start_child(branch, request, is_awaited=False)
    return child_id


async def _start_child(branch: RunBranch, request: StartRequest, *, is_awaited: bool) -> tuple[str, Ending | None]:
    """Starts a child: its id; and its end, if it is awaited, and has come before its start was written."""
    run, definition = branch.run, request.definition
    request.refuse_as_child()
    if request.workflow_id == run.workflow_id:
        msg = f"workflow {run.workflow_id!r} would start a child under its own id: give that another one, or none"
        raise DeadlockError(run.workflow_id, msg)
    async with DurableOperation(branch, RecordKind.CHILD, definition.name, str(definition)) as operation:
        key, record = operation.key, operation.record
        if record is not None:
            await operation.replayed()
            child_id, foreign = str(record.child_id), record.foreign
            if request.workflow_id not in (None, child_id) and not run.history.is_copied(record):
                asked = f"starts child {request.workflow_id!r} at key {key!r}"
                raise run.disagree(asked, f"child {child_id!r}", record)
        else:
            child_id, foreign = request.workflow_id or keys.child_id(run.workflow_id, key), None
            child = await _start(operation, request, child_id, is_awaited=is_awaited)
            if child.is_new:
                return child_id, child.ending
            operation.cancellable = False
            found = await operation.driver.wait(run, run.engine.find_child(child_id, definition))
            if found is not None and (found.parent_id, found.parent_key) != (run.workflow_id, key):
                foreign = found.name
        if foreign is not None:
            check_foreign(operation, request, child_id, foreign)
        return child_id, None


def check_foreign(operation: DurableOperation, request: StartRequest, child_id: str, foreign: str) -> None:
    """Raises unless a workflow that another caller started is meant, which then is the child."""
    run, name = operation.run, request.definition.name
    if request.workflow_id is None:
        msg = (
            f"workflow {run.workflow_id!r} starts a child at key {operation.key!r}, and under the child's id, "
            f"{child_id!r}, stands a workflow {foreign!r} which it has not started. It is parked as blocked. Give that "
            "one another id, or the child one of its own: `child.options(workflow_id=...)`"
        )
        raise run.park(WorkflowConflictError(child_id, msg))
    if foreign != name:
        msg = f"workflow id {child_id!r} belongs to workflow {foreign!r}, not to {name!r}"
        raise WorkflowConflictError(child_id, msg)


async def _start(operation: DurableOperation, request: StartRequest, child_id: str, *, is_awaited: bool) -> ChildStart:
    """Writes a child's start with the record of it."""
    run, driver = operation.run, operation.driver
    child = ChildStart(run, operation.key, request, child_id, request.arguments_text())
    run.check_may_follow(operation.key)
    if is_awaited and child.may_open():
        # A sync child may need the thread of its parent.
        awaits = None if request.definition.is_async else child_id
        wait = DurableWait(lambda: "a child that is being started")
        try:
            await driver.wait(run, _opened(run, child), awaits=awaits, wait=wait)
        except ThreadLimitError:
            await operation.commit(child.record(RecordKind.CHILD))
    else:
        await operation.commit(child.record(RecordKind.CHILD))
    return child


async def _opened(run: Run, child: ChildStart) -> None:
    """Writes the start of a child behind its opening. On the engine's loop."""
    try:
        child.open()
        await child.opened()
        await run.loop_driver.commit(run, child.record(RecordKind.CHILD))
    finally:
        child.forget()


async def wait_for_result(
    branch: RunBranch,
    workflow_id: str,
    definition: WorkflowDef | None,
    ending: Ending | None = None,
    *,
    elsewhere: Callable[[], Coroutine[Any, Any, Ending | Outcome]] | None = None,
) -> Any:
    """Waits for the outcome of a workflow, and records it in the waiting one: returns the value, or raises the error.

    ``ending`` is its end, if that is durable already; ``elsewhere`` waits for a workflow of another engine.
    """
    run = branch.run
    what = f"the result of workflow {workflow_id!r}"
    async with DurableOperation(branch, _RESULT, _RESULT, what) as operation:
        key, record = operation.key, operation.record

        async def live() -> Record:
            began = time.monotonic()
            known = None if ending is None else _recorded(workflow_id, ending)
            output, error = known or await _outcome(operation, workflow_id, elsewhere)
            elapsed = time.monotonic() - began
            return Record(key, _RESULT, child_id=workflow_id, output=output, error=error, elapsed=elapsed)

        found = await operation.outcome(live)
        if found.child_id != workflow_id and not run.history.is_copied(record):
            raise run.disagree(f"asks for {what} at key {key!r}", f"that of workflow {found.child_id!r}", record)
    if found.error is not None:
        failed = failure(run, found.error, f"key {key!r}", record)
        raise failed.exception or failed.noted(WorkflowFailedError(workflow_id, failed.type, failed.message))
    return load(run, _codec(definition), found.output, f"key {key!r}", record)


async def _outcome(
    operation: DurableOperation,
    workflow_id: str,
    elsewhere: Callable[[], Coroutine[Any, Any, Ending | Outcome]] | None,
) -> tuple[str | None, str | None]:
    """The output of a workflow, or the error of waiting for it: for the record, so a refused wait is included."""
    run, driver = operation.run, operation.driver
    try:
        if elsewhere is None:
            await _refuse_circle(operation, workflow_id)
            with Waiting(run.engine.waits, run.workflow_id, workflow_id):
                outcome = await driver.outcome(run, workflow_id)
        else:
            outcome = await driver.wait(run, elsewhere(), awaits=workflow_id)
    except (ThreadLimitError, DeadlockError) as refused:
        return None, dump_error(refused)
    return _recorded(workflow_id, outcome)


def _recorded(workflow_id: str, outcome: Ending | Outcome) -> tuple[str | None, str | None]:
    """The output and the error of a workflow, as the waiting one records them."""
    failure = failure_of(workflow_id, outcome)
    return outcome.output, None if failure is None else dump_error(failure)


async def _refuse_circle(operation: DurableOperation, awaited: str) -> None:
    """Raises a ``DeadlockError`` if ``awaited`` is suspended until this workflow has ended.

    Only a pass that does nothing new before it waits looks for that: it may have been suspended itself in that wait.
    """
    run = operation.run
    if run.epoch == 1 or run.seq != run.history.next_place[0] or _goes_on(operation):
        return
    if circle := await operation.driver.wait(run, run.engine.patient_repository.way(awaited, run.workflow_id)):
        raise deadlock(run.workflow_id, circle)


def _goes_on(operation: DurableOperation) -> bool:
    """Whether anything but the outcome of this operation may let the run go on."""
    run, owner = operation.run, operation.branch.owner
    others = [one for one in run.coroutines if one is not owner]
    if run.limits or run.has_plain_timer:
        return True
    return any(one.operating or one.is_woken or not one.waits for one in others)


def result_of(workflow_id: str, outcome: Ending | Outcome, definition: WorkflowDef | None) -> Any:
    """The result of waiting for a workflow with this outcome, typed if its function is known; or raises its failure."""
    failure = failure_of(workflow_id, outcome)
    if failure is not None:
        raise failure
    return _codec(definition).load(outcome.output or "null")


def as_result(info: WorkflowInfo, definition: WorkflowDef | None) -> WorkflowInfo:
    """A workflow's record with its output and error as a wait returns them; JSON that does not fit is kept as it is."""
    output, error = info.output, info.error
    with suppress(Exception):  # today's type may be another one, and its code may raise anything
        if error is not None:
            error = failure_of(info.id, Ending(info.status, error=json.dumps(error)))
        elif info.status is WorkflowStatus.SUCCEEDED:
            output = _codec(definition).load(json.dumps(output))
    return replace(info, output=output, error=error)


def _codec(definition: WorkflowDef | None) -> serde.Codec[Any]:
    return serde.plain if definition is None else definition.result


def failure_of(workflow_id: str, outcome: Ending | Outcome) -> BaseException | None:
    """The error of waiting for a workflow: its own exception, or that it failed, was cancelled, or is blocked."""
    if outcome.status is WorkflowStatus.SUCCEEDED:
        return None
    if outcome.status is WorkflowStatus.CANCELLED:
        return _cancelled(workflow_id, outcome.error)
    found = load_error(outcome.error or "{}")
    if outcome.status is WorkflowStatus.BLOCKED:
        return WorkflowBlockedError(workflow_id, f"workflow {workflow_id!r} is blocked: {found.message}")
    if isinstance(found.exception, Exception):  # what ends its process is not to end the waiter's
        return found.exception
    return found.noted(WorkflowFailedError(workflow_id, found.type, found.message))


def _cancelled(workflow_id: str, text: str | None) -> BaseException:
    """The error of waiting for a cancelled workflow, whose row has the reason."""
    if text is None:
        return WorkflowCancelledError(workflow_id, f"workflow {workflow_id!r} was cancelled")
    found = load_error(text)
    reason = found.message or None
    msg = f"workflow {workflow_id!r} was cancelled{f': {reason}' if reason else ''}"
    return found.noted(WorkflowCancelledError(workflow_id, msg, reason))
