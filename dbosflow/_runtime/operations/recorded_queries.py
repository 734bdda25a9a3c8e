"""Queries of a body about workflows: the answer is put on record, so a replay gets the same one.

The state may have changed by then. A query that also has an effect, as a cancellation, is sent again if its answer was
not on record when the worker died.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.operations.ahead import until_durable
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.runs.entries import Record
from dbosflow.errors import DatabaseUnavailableError, DbosflowError, WorkflowError
from dbosflow.failures import dump_error, load_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow.serde import Codec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecordedQuery(Generic[T]):
    """A query about a workflow."""

    kind: RecordKind
    """The name of the operation, and the kind of its record."""
    codec: Codec[T]
    """The codec of the answer."""


async def run_query(
    branch: RunBranch, query: RecordedQuery[T], workflow_id: str, answer: Callable[[], Awaitable[T]]
) -> T:
    """Returns the answer to a query about a workflow, or raises its recorded error; ``answer`` fetches a new one."""
    run, kind = branch.run, query.kind
    what = f"the {kind} of workflow {workflow_id!r}"
    async with DurableOperation(branch, kind, kind, what) as operation:
        key = operation.key

        async def live() -> Record:
            output, error = None, None
            if kind is RecordKind.CANCEL:  # whom to cancel may be drawn
                await until_durable(operation.driver, run)
            try:
                output = query.codec.dump(await operation.driver.wait(run, patiently(answer)))
            except DbosflowError as refused:
                error = dump_error(refused)
            return Record(key, kind, child_id=workflow_id, output=output, error=error)

        found = await operation.outcome(live)
        if found.child_id != workflow_id and not branch.run.history.is_copied(operation.record):
            raise run.disagree(f"asks for {what} at key {key!r}", f"that of {found.child_id!r}", operation.record)
    if found.error is not None:
        failed = load_error(found.error)
        raise failed.exception or WorkflowError(workflow_id, failed.message)
    return query.codec.load(found.output or "null")


async def patiently(answer: Callable[[], Awaitable[T]]) -> T:
    """Tries until there is an answer: no workflow fails for want of a database. Each try waits by itself."""
    while True:
        try:
            return await answer()
        except DatabaseUnavailableError:
            continue
