"""Forks and retries: a workflow goes on from a turn of its past, under another id.

A fork is a crash at a turn, after which a worker takes the workflow over: so all that a replay promises holds for it. A
retry is a fork from before what ended the workflow.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow._records import keys
from dbosflow._records.ids import new_id
from dbosflow._records.kinds import STEPS, RecordKind, is_delivered
from dbosflow._runtime.operations.tokens import TokenId
from dbosflow._runtime.repository import not_found
from dbosflow._store import fork, worker
from dbosflow._store.fork import ForkRequest
from dbosflow._store.notify import queue_topic
from dbosflow.errors import OutdatedWorkersError, StreamTruncatedError, WorkflowConflictError, WorkflowForkError
from dbosflow.types import WorkflowStatus
from dbosflow.unreadable import Unreadable, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow._runtime.repository import Repository
    from dbosflow._store.fork import End, FailedRecord, Forked, StartedChild

SINCE = "0.1.0"
"""The first version whose workers can take over a fork."""
_STAND_INS = frozenset({"StepFailedError", "WorkflowFailedError"})
"""What is raised in place of an exception that cannot be rebuilt; the message names that one."""
_BAD = frozenset({WorkflowStatus.FAILED, WorkflowStatus.CANCELLED, WorkflowStatus.BLOCKED})


@dataclass(frozen=True, slots=True)
class Forking:
    """From where a workflow is to be forked, and how."""

    step: str | None = None
    turn: int | None = None
    output: str | None = None
    """The JSON of the step's new output."""
    fork_id: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class MadeFork:
    """A fork that was made: its id, the turn from which it goes on, what else ran in that turn, and its open tokens."""

    fork_id: str
    turn: int
    again: tuple[str, ...]
    tokens: tuple[str, ...]


class Forks:
    """Makes forks in one schema. ``announce`` wakes the workers."""

    def __init__(self, repository: Repository, announce: Callable[[Iterable[str]], None]) -> None:
        self._repository = repository
        self._announce = announce

    async def fork(self, workflow_id: str, how: Forking) -> MadeFork:
        """Forks a workflow from a step or a turn."""
        place = await self._repository.ask(fork.place, workflow_id, how.step)
        if place is None:
            raise not_found(workflow_id)
        turn = how.turn if how.step is None else place.turn
        if turn is None and place.attempted:
            turn = place.last + 1
        if turn is None:
            msg = (
                f"workflow {workflow_id!r} has no step {how.step!r} on record to be forked from. Take a key of "
                f"`dbosflow workflow show {workflow_id}`; with from_turn={place.last + 1} the fork keeps all there is"
            )
            raise WorkflowForkError(workflow_id, msg)
        if turn > place.last + 1:
            msg = f"workflow {workflow_id!r} has turns up to {place.last}: from_turn={turn} is beyond {place.last + 1}"
            raise WorkflowForkError(workflow_id, msg)
        if how.output is not None and place.kind not in STEPS and not (place.kind is None and place.attempted):
            msg = f"{how.step!r} of workflow {workflow_id!r} is no step, but a {place.kind}: only steps take an output"
            raise WorkflowForkError(workflow_id, msg)
        return await self._make(
            ForkRequest(workflow_id, how.fork_id or new_id(), turn, how.step, how.output, queue=how.queue)
        )

    async def retry(self, workflow_id: str, fork_id: str | None, queue: str | None) -> MadeFork:
        """Forks a failed or cancelled workflow from before what ended it."""
        end = await self._repository.ask(fork.end, workflow_id)
        if end is None:
            raise not_found(workflow_id)
        if end.status not in {WorkflowStatus.FAILED, WorkflowStatus.CANCELLED}:
            raise WorkflowForkError(workflow_id, _not_to_be_retried(workflow_id, end.status))
        if end.compensated:
            msg = (
                f"workflow {workflow_id!r} has undone what it had done, by its compensations: a retry would go on as "
                "if it still held. Fork it with from_turn=0, which begins anew, or from a step before which all holds"
            )
            raise WorkflowForkError(workflow_id, msg)
        began = -1 if end.continued is None else end.continued
        failures = [one for one in await self._repository.ask(fork.failures, workflow_id) if one.turn > began]
        children = [one for one in await self._repository.ask(fork.started, workflow_id) if one.turn > began]
        turn = _turn_before_the_end(workflow_id, end, failures, children)
        turn = _turn_before_bad_children(workflow_id, turn, children)
        return await self._make(ForkRequest(workflow_id, fork_id or new_id(), turn, anew=True, queue=queue))

    async def _make(self, request: ForkRequest) -> MadeFork:
        workflow_id = request.workflow_id
        outdated = await self._repository.ask(worker.older_than, SINCE)
        if outdated:
            msg = (
                f"workflow {workflow_id!r} cannot be forked while workers are live that do not know forks: "
                f"{', '.join(outdated)}. Stop them, or bring them to this version, first"
            )
            raise OutdatedWorkersError(msg)
        found = await self._repository.ask(fork.fork, request)
        if found is None:
            raise not_found(workflow_id)
        if (refused := _refusal(request, found)) is not None:
            raise refused
        # Also the queue of the forked workflow: a claimer may have passed over that, which was locked for a moment.
        self._announce({queue_topic(found.queue), queue_topic(found.original_queue)})
        beside = await self._repository.ask(fork.beside, workflow_id, request.turn)
        again = dict.fromkeys(keys.operation_of(key, kind) for key, kind in beside if is_delivered(kind))
        others = tuple(key for key in again if key != request.step_key)
        tokens = await self._repository.ask(fork.open_tokens, request.fork_id, request.turn)
        ids = tuple(
            TokenId(request.fork_id, key, json.loads(secret)).text()
            for key, secret in tokens
            if not isinstance(secret, Unreadable)
        )
        return MadeFork(request.fork_id, request.turn, others, ids)


def step_output(value: Any, step: str) -> str:
    """The JSON of the output that a step is to have."""
    return serde.dump_undeclared(value, f"the output for {step!r}")


def _refusal(request: ForkRequest, found: Forked) -> Exception | None:
    """The error of a fork that was not made."""
    workflow_id, turn = request.workflow_id, request.turn
    if found.truncated is not None:
        key, first = found.truncated
        msg = (
            f"workflow {workflow_id!r} cannot be forked from turn {turn}: its stream {key!r} was trimmed, and begins "
            f"at offset {first}, with what was written or read later. Fork it from a later turn"
        )
        return StreamTruncatedError(workflow_id, key, msg, first)
    if found.taken:
        msg = f"workflow id {request.fork_id!r} is taken: give the fork of workflow {workflow_id!r} a new one"
        return WorkflowConflictError(request.fork_id, msg)
    why = _impossible(workflow_id, turn, found)
    return None if why is None else WorkflowForkError(workflow_id, why)


def _impossible(workflow_id: str, turn: int, found: Forked) -> str | None:
    """Why nothing can be forked from that turn of the workflow."""
    if found.is_earlier:
        return (
            f"workflow {workflow_id!r} was continued as new behind turn {turn}, and the records before that are "
            "removed: fork it from a step of its current iteration, or start another workflow with the arguments that "
            "you want"
        )
    if found.is_late:
        return (
            f"the deadline of workflow {workflow_id!r} had passed before it was started, and a fork has no more time "
            "than it had: start another workflow with the same arguments and a later deadline"
        )
    if found.unknown is not None:
        return (
            f"stream {found.unknown!r} of workflow {workflow_id!r} has values of an older version of dbosflow, of "
            "which nobody knows in which turn they were written: fork it as a whole, from its last turn + 1"
        )
    if found.missing is not None:
        return (
            f"a fork of workflow {workflow_id!r} from turn {turn} would wait for its child {found.missing!r}, which "
            "was removed: fork it from before the start of that child, or from behind its result"
        )
    return None


def _not_to_be_retried(workflow_id: str, status: str) -> str:
    what = f"workflow {workflow_id!r} has the status {status}, and only one that failed or was cancelled is retried"
    if status == WorkflowStatus.BLOCKED:
        return f"{what}. Resume it, once its code fits its records"
    if status == WorkflowStatus.SUCCEEDED:
        return f"{what}. Fork it from a step, to run it again from there"
    return f"{what}. Wait for its end, or cancel it first"


def _turn_before_the_end(workflow_id: str, end: End, failures: list[FailedRecord], children: list[StartedChild]) -> int:
    """The turn of the record that ended a workflow; behind the last one if its own code did."""
    failures = [record for record in failures if record.turn <= end.last]
    if end.status == WorkflowStatus.CANCELLED or end.timed_out or not failures:
        return end.last + 1
    causes = [*_rows(json.loads(readable(end.error) or "{}"))]
    records = ((one, readable(one.error)) for one in failures)
    cause = next((one for one, error in records if error and _is_of(json.loads(error), causes)), None)
    if cause is None:  # if the last thing that the program learnt was an error, it has made another one of that
        cause = failures[0] if failures[0].error else None
    if cause is None:
        return end.last + 1
    if cause.kind == RecordKind.RESULT and cause.child_id not in {child.child_id for child in children}:
        msg = (
            f"workflow {workflow_id!r} ended with the error of {cause.child_id!r}, which is no child of it: a fork "
            "would learn of the same error. Fork it from before it got that id"
        )
        raise WorkflowForkError(workflow_id, msg)
    return cause.turn


def _rows(error: Any) -> Iterable[dict[str, Any]]:
    """The record of an exception, and those of the exceptions in a group."""
    if isinstance(error, dict):
        yield error
        for part in error.get("parts") or ():
            yield from _rows(part)


def _is_of(record: Any, causes: list[dict[str, Any]]) -> bool:
    """Whether one of the exceptions is that of a record, or stands for it."""
    if not isinstance(record, dict):
        return False
    same = [record.get(part) for part in ("type", "module", "message")]
    named = f"{record.get('type')}: {record.get('message')}"
    return any(
        same == [one.get(part) for part in ("type", "module", "message")]
        or (one.get("type") in _STAND_INS and str(one.get("message")).endswith(named))
        for one in causes
    )


def _turn_before_bad_children(workflow_id: str, turn: int, children: list[StartedChild]) -> int:
    """The turn, or that of the first start of a child that ended badly and whose outcome is not on record before it.

    The fork would wait for the same child, and learn of the same end. So it starts one of its own.
    """
    while True:
        bad = next((one for one in children if one.turn < turn and _ends_badly(one, turn)), None)
        if bad is None:
            return turn
        if not _is_by_place(workflow_id, bad):
            msg = (
                f"workflow {workflow_id!r} cannot be retried: its child {bad.child_id!r} is {bad.status or 'removed'}, "
                "and has a given id, so a retry would find the same child. Delete that workflow first, or fork this "
                "one with code that gives its child another id"
            )
            raise WorkflowForkError(workflow_id, msg)
        turn = bad.turn


def _ends_badly(child: StartedChild, turn: int) -> bool:
    if child.told is not None and child.told < turn:
        return False
    return child.status in _BAD or (child.status is None and child.told is not None)


def _is_by_place(workflow_id: str, child: StartedChild) -> bool:
    """Whether the child has its id by its place in the workflow, or in the one that this is a fork of."""
    parent_id = child.parent_id if child.parent_key == child.key and child.parent_id is not None else workflow_id
    return keys.child_id(parent_id, child.key) == child.child_id
