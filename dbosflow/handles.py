"""Handles to workflows. A handle is made from an id, in any process, without I/O."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations.children import as_result, result_of, wait_for_result
from dbosflow._runtime.operations.recorded_queries import RecordedQuery, run_query
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.replay.branch import Branch
from dbosflow.config import check_reason, check_timeout
from dbosflow.errors import WaitTimeoutError
from dbosflow.serde import Codec
from dbosflow.types import Cancellation, WorkflowInfo, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from dbosflow._runtime.execution.engine_port import HandlePort
    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.process.host import Host
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._store.workflow import Outcome
    from dbosflow.definitions import WorkflowDef

T = TypeVar("T")
A = TypeVar("A")

_STATUS: RecordedQuery[WorkflowStatus] = RecordedQuery(
    RecordKind.STATUS, Codec(WorkflowStatus, "the status of a workflow")
)
_INFO: RecordedQuery[WorkflowInfo] = RecordedQuery(RecordKind.INFO, Codec(WorkflowInfo, "the record of a workflow"))
_CANCEL: RecordedQuery[Cancellation] = RecordedQuery(
    RecordKind.CANCEL, Codec(Cancellation, "what came of a cancellation")
)


class WorkflowHandle(Generic[T]):
    """A handle to one workflow, by its id.

    Every blocking method raises ``BlockingCallError`` on a running event loop. Every method raises
    ``EngineClosedError`` if the engine is not open, and ``DatabaseUnavailableError`` if Postgres does not answer in
    time.
    """

    def __init__(self, host: Host, core: HandlePort, workflow_id: str, definition: WorkflowDef | None) -> None:
        self._host = host
        self._core = core
        self._definition = definition
        self.workflow_id = workflow_id

    def status(self) -> WorkflowStatus:
        """The workflow's status. See ``status_async``, its awaitable twin."""
        return self._query(_STATUS, lambda: self._core.repository.status(self.workflow_id))

    async def status_async(self) -> WorkflowStatus:
        """The workflow's status. In a workflow's body the answer is recorded, and a replay gives the same.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._query_async(_STATUS, lambda: self._core.repository.status(self.workflow_id))

    def info(self) -> WorkflowInfo:
        """The workflow's record. See ``info_async``, its awaitable twin."""
        return as_result(self._query(_INFO, lambda: self._core.repository.info(self.workflow_id)), self._definition)

    async def info_async(self) -> WorkflowInfo:
        """The workflow's record. In a workflow's body the answer is recorded, and a replay gives the same.

        If the handle knows the function, ``output`` is what ``result_async`` returns and ``error`` what it raises.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        info = await self._query_async(_INFO, lambda: self._core.repository.info(self.workflow_id))
        return as_result(info, self._definition)

    def result(self, timeout: float | None = None) -> T:
        """Waits for the workflow's end, and returns its result or raises its error.

        See ``result_async``, its awaitable twin, for the argument and the errors.
        """
        scope = current_scope()
        if isinstance(scope, Branch):
            refuse_on_loop("await handle.result_async()")
            found: T = drive(self._recorded(scope))
            return found
        return self._host.call("result_async", self._result, timeout)

    async def result_async(self, timeout: float | None = None) -> T:  # noqa: ASYNC109 (a limit of the wait, in seconds)
        """Waits for the workflow's end, and returns its result or raises its error.

        The result has the type of the function's annotation if the handle knows the function. In a workflow's body the
        outcome is recorded, and a replay gives the same.

        Args:
            timeout: how long to wait, in seconds; ``None``: without limit. Ignored in a workflow's body.

        Raises:
            Exception: the workflow's own exception, rebuilt, if it failed.
            WorkflowFailedError: the workflow failed, and its own exception cannot be rebuilt here.
            WorkflowCancelledError: the workflow was cancelled; ``reason`` says why.
            WorkflowTimeoutError: the workflow has not ended by its deadline.
            WorkflowBlockedError: the workflow is parked and will not end by itself.
            WorkflowNotFoundError: no workflow has this id.
            WaitTimeoutError: the workflow has not ended within ``timeout``. It goes on.
            DeadlockError: in a workflow's body: the workflow waits for the caller.
        """
        scope = current_scope()
        if isinstance(scope, Branch):
            return await self._recorded(scope)
        return await self._host.bridge(self._result(timeout))

    async def _recorded(self, branch: RunBranch) -> T:
        engine = None if branch.run.engine.is_of(self._core) else self._elsewhere
        result: T = await wait_for_result(branch, self.workflow_id, self._definition, elsewhere=engine)
        return result

    async def _elsewhere(self) -> Outcome | Ending:
        """How the workflow ended, if another engine of this process knows its id."""
        return await self._host.reach(self._core.outcome(self.workflow_id, ended=True))

    async def _result(self, timeout: float | None) -> T:  # noqa: ASYNC109 (a limit of the wait, in seconds)
        check_timeout("timeout", timeout)
        try:
            if timeout is None:
                outcome = await self._core.outcome(self.workflow_id)
            else:
                async with asyncio.timeout(timeout):
                    outcome = await self._core.outcome(self.workflow_id)
        except TimeoutError:
            msg = f"workflow {self.workflow_id!r} has not ended within {timeout} s; "
            msg += f"engine.workflows.explain({self.workflow_id!r}) tells what it waits for"
            raise WaitTimeoutError(msg) from None
        result: T = result_of(self.workflow_id, outcome, self._definition)
        return result

    def cancel(self, *, reason: str | None = None, children: bool = True) -> Cancellation:
        """Requests the workflow's cancellation. See ``cancel_async``, its awaitable twin."""
        check_reason(reason)
        return self._query(_CANCEL, lambda: self._core.cancel(self.workflow_id, children, reason))

    async def cancel_async(self, *, reason: str | None = None, children: bool = True) -> Cancellation:
        """Requests the workflow's cancellation, and returns what came of the request.

        Unless the answer is ``"ended"``, the cancellation is final: the workflow can no longer succeed or fail. The
        workflow's process is notified at once. Async code gets a ``CancelledError``. Sync code gets an error at its
        next durable call, and the outcome of a running step is refused. Cleanup code has the engine's ``grace`` to
        finish, but can do nothing durable. Then the workflow ends as ``cancelled``, and so do the streams that it left
        open.

        Args:
            reason: why, in words of up to 1,000 bytes. The body finds them in its exception, whoever waits for the
                workflow in ``WorkflowCancelledError.reason``, and readers of its streams in
                ``StreamCancelledError.reason``. The reason of the first request counts.
            children: whether to cancel the workflow's children, too, and theirs, including those that are just being
                started. Children of a child that has ended are not cancelled.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
            ConfigurationError: ``reason`` is no text of up to 1,000 bytes.
        """
        check_reason(reason)
        return await self._query_async(_CANCEL, lambda: self._core.cancel(self.workflow_id, children, reason))

    def _query(self, query: RecordedQuery[A], answer: Callable[[], Coroutine[Any, Any, A]]) -> A:
        twin, scope = f"{query.kind}_async", current_scope()
        if isinstance(scope, Branch):
            refuse_on_loop(f"await handle.{twin}()")
            return drive(run_query(scope, query, self.workflow_id, self._reached(answer)))
        return self._host.call(twin, answer)

    async def _query_async(self, query: RecordedQuery[A], answer: Callable[[], Coroutine[Any, Any, A]]) -> A:
        scope = current_scope()
        if isinstance(scope, Branch):
            return await run_query(scope, query, self.workflow_id, self._reached(answer))
        return await self._host.bridge(answer())

    def _reached(self, answer: Callable[[], Coroutine[Any, Any, A]]) -> Callable[[], Awaitable[A]]:
        return lambda: self._host.reach(answer())

    def __repr__(self) -> str:
        return f"<WorkflowHandle {self.workflow_id!r}>"
