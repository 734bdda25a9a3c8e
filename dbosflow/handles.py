"""Handles: what a caller holds of a workflow. Making one does no I/O; any process can make one from an id."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations.children import as_result, result_of, wait_for_result
from dbosflow._runtime.operations.recorded_queries import RecordedQuery, run_query
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.replay.branch import Branch
from dbosflow.config import check_timeout
from dbosflow.errors import WaitTimeoutError
from dbosflow.serde import Codec
from dbosflow.types import Cancellation, WorkflowInfo, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.process.host import Host
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._store.workflow import Outcome
    from dbosflow.definitions import WorkflowDef

T = TypeVar("T")
A = TypeVar("A")

_STATUS: RecordedQuery[WorkflowStatus] = RecordedQuery("status", Codec(WorkflowStatus, "the status of a workflow"))
_INFO: RecordedQuery[WorkflowInfo] = RecordedQuery("info", Codec(WorkflowInfo, "the record of a workflow"))
_CANCEL: RecordedQuery[Cancellation] = RecordedQuery("cancel", Codec(Cancellation, "what came of a cancellation"))


class WorkflowHandle(Generic[T]):
    """One workflow, by its id."""

    def __init__(self, host: Host, core: EngineCore, workflow_id: str, definition: WorkflowDef | None) -> None:
        self._host = host
        self._core = core
        self._definition = definition
        self.workflow_id = workflow_id

    def status(self) -> WorkflowStatus:
        """Where the workflow stands; ``WorkflowNotFoundError`` if there is none of this id.

        Its awaitable twin is ``status_async``.
        """
        return self._query(_STATUS, lambda: self._core.repository.status(self.workflow_id))

    async def status_async(self) -> WorkflowStatus:
        """Where the workflow stands; ``WorkflowNotFoundError`` if there is none of this id.

        In a workflow's body the answer is put on record.
        """
        return await self._query_async(_STATUS, lambda: self._core.repository.status(self.workflow_id))

    def info(self) -> WorkflowInfo:
        """The workflow's record; ``WorkflowNotFoundError`` if there is none of this id.

        Its awaitable twin is ``info_async``.
        """
        return as_result(self._query(_INFO, lambda: self._core.repository.info(self.workflow_id)), self._definition)

    async def info_async(self) -> WorkflowInfo:
        """The workflow's record; ``WorkflowNotFoundError`` if there is none of this id.

        Its ``output`` and ``error`` are what ``result_async`` gives and raises. In a workflow's body the answer is
        put on record.
        """
        info = await self._query_async(_INFO, lambda: self._core.repository.info(self.workflow_id))
        return as_result(info, self._definition)

    def result(self, timeout: float | None = None) -> T:
        """Waits for the workflow's end, up to ``timeout`` seconds, and gives its result, or raises its error.

        See ``result_async``, its awaitable twin, for what it raises.
        """
        scope = current_scope()
        if isinstance(scope, Branch):
            refuse_on_loop("await handle.result_async()")
            found: T = drive(self._recorded(scope.run.thread_driver, scope))
            return found
        return self._host.call("result_async", self._result, timeout)

    async def result_async(self, timeout: float | None = None) -> T:  # noqa: ASYNC109 (a limit of the wait, in seconds)
        """Waits for the workflow's end and gives its result, typed by its annotation if the handle knows its function.

        Inside a workflow the outcome is recorded, and a replay gives the same; ``timeout`` has no meaning there.

        Raises:
            Exception: the workflow's own, rebuilt, if it failed.
            WorkflowFailedError: it failed, and its own exception cannot be rebuilt here.
            WorkflowCancelledError: it was cancelled.
            WorkflowBlockedError: it is parked and will not end by itself.
            WorkflowNotFoundError: there is none of this id.
            WaitTimeoutError: it has not ended within ``timeout`` seconds; it goes on.
        """
        scope = current_scope()
        if isinstance(scope, Branch):
            return await self._recorded(scope.run.loop_driver, scope)
        return await self._host.bridge(self._result(timeout))

    async def _recorded(self, driver: Driver, branch: RunBranch) -> T:
        engine = None if branch.run.engine.is_of(self._core) else self._elsewhere
        result: T = await wait_for_result(driver, branch, self.workflow_id, self._definition, elsewhere=engine)
        return result

    async def _elsewhere(self) -> Outcome | Ending:
        """How the workflow ended that another engine of this process knows under this id."""
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
            msg = f"workflow {self.workflow_id!r} has not ended within {timeout} s; it goes on"
            raise WaitTimeoutError(msg) from None
        result: T = result_of(self.workflow_id, outcome, self._definition)
        return result

    def cancel(self, *, children: bool = True) -> Cancellation:
        """Asks for the workflow's cancellation, and its children's, unless told otherwise; says what came of that.

        See ``cancel_async``, its awaitable twin.
        """
        return self._query(_CANCEL, lambda: self._core.cancel(self.workflow_id, children))

    async def cancel_async(self, *, children: bool = True) -> Cancellation:
        """Asks for the workflow's cancellation; says what came of that.

        That is final: unless the answer is ``"ended"``, the workflow does not succeed or fail any more. The owner knows
        at once. Async code gets ``CancelledError``; sync code an error at its next durable call, and the outcome of a
        step under way is refused. Cleanup code has the engine's ``grace``, but can do nothing durable. Then the
        workflow ends as ``cancelled``, and so do the streams that it left open.

        Args:
            children: cancel what it has started, too, and what that has started in its turn; also what it is starting
                just now. What a child that has ended had started stays as it is.
        """
        return await self._query_async(_CANCEL, lambda: self._core.cancel(self.workflow_id, children))

    def _query(self, query: RecordedQuery[A], answer: Callable[[], Coroutine[Any, Any, A]]) -> A:
        twin, scope = f"{query.kind}_async", current_scope()
        if isinstance(scope, Branch):
            refuse_on_loop(f"await handle.{twin}()")
            return drive(run_query(scope.run.thread_driver, scope, query, self.workflow_id, self._reached(answer)))
        return self._host.call(twin, answer)

    async def _query_async(self, query: RecordedQuery[A], answer: Callable[[], Coroutine[Any, Any, A]]) -> A:
        scope = current_scope()
        if isinstance(scope, Branch):
            return await run_query(scope.run.loop_driver, scope, query, self.workflow_id, self._reached(answer))
        return await self._host.bridge(answer())

    def _reached(self, answer: Callable[[], Coroutine[Any, Any, A]]) -> Callable[[], Awaitable[A]]:
        return lambda: self._host.reach(answer())

    def __repr__(self) -> str:
        return f"<WorkflowHandle {self.workflow_id!r}>"
