"""Several workflows at a time: a child for each item of a list, and which of several workflows ends first."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations import calls, mapping
from dbosflow._runtime.operations.endings import Endings, Wait, next_ended
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.replay.branch import Branch
from dbosflow.config import LARGEST_INTEGER, check_whole
from dbosflow.errors import ConfigurationError
from dbosflow.workflows import start_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.process.host import Host
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._store.workflow import Outcome
    from dbosflow.handles import WorkflowHandle
    from dbosflow.workflows import Workflow, WorkflowSpec

T = TypeVar("T")
R = TypeVar("R")


@overload
def map_workflow(
    workflow: Workflow[[T], Any, R] | WorkflowSpec[[T], R],
    items: Iterable[T],
    *,
    concurrency: int = ...,
    return_exceptions: Literal[False] = ...,
) -> list[R]: ...
@overload
def map_workflow(
    workflow: Workflow[[T], Any, R] | WorkflowSpec[[T], R],
    items: Iterable[T],
    *,
    concurrency: int = ...,
    return_exceptions: bool,
) -> list[R | BaseException]: ...
def map_workflow(
    workflow: Any, items: Iterable[Any], *, concurrency: int = 10, return_exceptions: bool = False
) -> list[Any]:
    """Runs a child workflow for each item, and returns the results in the order of the items.

    See ``map_workflow_async``, its awaitable twin, for the arguments and errors.

    Raises:
        BlockingCallError: an event loop runs in the calling thread.
    """
    refuse_on_loop("await map_workflow_async(...)")
    requests = _requests(workflow, items, concurrency)
    scope = current_scope()
    if isinstance(scope, Branch):
        return drive(_mapped(scope, requests, concurrency, return_exceptions)) if requests else []
    found: list[Any] = []
    for request in requests:
        try:
            found.append(calls.run_child(request.definition, request.args, {}, "map_workflow_async"))
        except Exception as error:
            if not return_exceptions:
                raise
            found.append(error)
    return found


@overload
async def map_workflow_async(
    workflow: Workflow[[T], Any, R] | WorkflowSpec[[T], R],
    items: Iterable[T],
    *,
    concurrency: int = ...,
    return_exceptions: Literal[False] = ...,
) -> list[R]: ...
@overload
async def map_workflow_async(
    workflow: Workflow[[T], Any, R] | WorkflowSpec[[T], R],
    items: Iterable[T],
    *,
    concurrency: int = ...,
    return_exceptions: bool,
) -> list[R | BaseException]: ...
async def map_workflow_async(
    workflow: Any, items: Iterable[Any], *, concurrency: int = 10, return_exceptions: bool = False
) -> list[Any]:
    """Runs a child workflow for each item, and returns the results in the order of the items.

    ```python
    summaries = await map_workflow_async(summarize, pages, concurrency=20)
    ```

    Each child is started exactly once, with an id that follows from its place in the list, and its result is on
    record: a recovered workflow goes on where it was. It is one operation of its branch, with two records for each
    item. Outside of workflows it calls the function for one item after the other.

    The first failure cancels the children that are under way, starts no others and is raised, without a wait for the
    end of those that it has cancelled. If the operation itself is cancelled, the children that it has started go on.

    Args:
        workflow: a workflow that takes one argument; or one with options for each start, as
            ``summarize.options(queue="pages")``, but without an id.
        items: the arguments. JSON must be able to carry each under the annotation.
        concurrency: how many children are under way at a time.
        return_exceptions: whether each child's exception stands in its result's place, and the others go on.

    Raises:
        Exception: the exception of the first child that failed, or the other errors of a handle's ``result``.
        ConfigurationError: ``concurrency`` is below 1, or there is an id among the options.
        SerializationError: JSON cannot carry an item under the annotation. Then nothing was started.
        DefinitionError: the caller is a step.
        BranchError: the caller is no branch of its workflow.
    """
    requests = _requests(workflow, items, concurrency)
    scope = current_scope()
    if isinstance(scope, Branch):
        return await _mapped(scope, requests, concurrency, return_exceptions) if requests else []
    found: list[Any] = []
    for request in requests:
        try:
            found.append(await calls.run_child_async(request.definition, request.args, {}))
        except Exception as error:
            if not return_exceptions:
                raise
            found.append(error)
    return found


def _requests(workflow: Any, items: Iterable[Any], concurrency: int) -> list[StartRequest]:
    check_whole("concurrency", concurrency, 1, LARGEST_INTEGER)
    requests = [start_request(workflow, (item,), {}) for item in items]
    if requests:
        requests[0].refuse_as_child()
    if requests and requests[0].workflow_id is not None:
        msg = "map_workflow starts a workflow for each item: leave out the option workflow_id"
        raise ConfigurationError(msg)
    return requests


async def _mapped(
    branch: RunBranch,
    requests: list[StartRequest],
    concurrency: int,
    return_exceptions: bool,  # noqa: FBT001 (of the faces)
) -> list[Any]:
    return await mapping.map_workflow(branch, requests, concurrency=concurrency, collects_errors=return_exceptions)


# -- the first of several ----------------------------------------------------------------------------------------------


def wait_first(handles: Iterable[WorkflowHandle[T]]) -> WorkflowHandle[T]:
    """Waits until one of several workflows has ended, and returns its handle.

    See ``wait_first_async``, its awaitable twin, for the argument and the errors.

    Raises:
        BlockingCallError: an event loop runs in the calling thread.
    """
    refuse_on_loop("await wait_first_async(...)")
    waits = _Waits(handles)
    try:
        return waits.next(most=1)[0]
    finally:
        waits.close()


async def wait_first_async(handles: Iterable[WorkflowHandle[T]]) -> WorkflowHandle[T]:
    """Waits until one of several workflows has ended, and returns its handle, whose ``result`` is there then.

    In a workflow's body the answer is recorded: a replay gets the same one, whichever have ended by then. The others go
    on. A workflow that nobody knows counts as ended, since its ``result`` raises at once; outside of workflows one that
    is blocked does, too.

    Args:
        handles: handles of one engine, or in a workflow's body of any.

    Raises:
        ConfigurationError: there is no handle.
        BranchError: the caller is no branch of its workflow.
    """
    waits = _Waits(handles)
    try:
        return (await waits.next_async(most=1))[0]
    finally:
        waits.close()


def as_completed(handles: Iterable[WorkflowHandle[T]]) -> Iterator[WorkflowHandle[T]]:
    """Iterates over the handles of several workflows as these end.

    See ``as_completed_async``, its twin for ``async for``, for the argument and the errors.

    Raises:
        BlockingCallError: an event loop runs in the calling thread.
    """
    refuse_on_loop("async for handle in as_completed_async(...)")
    return _completed(_Waits(handles))


def as_completed_async(handles: Iterable[WorkflowHandle[T]]) -> AsyncIterator[WorkflowHandle[T]]:
    """Iterates over the handles of several workflows as these end.

    ```python
    async for handle in as_completed_async([await crawl.start_async(url) for url in urls]):
        print(await handle.result_async())
    ```

    In a workflow's body the order is recorded, with a record for those that have ended by the time of each wait; of
    those, none is first. A loop that is left early leaves the other workflows as they are.

    Args:
        handles: handles of one engine, or in a workflow's body of any.

    Raises:
        ConfigurationError: there is no handle.
        BranchError: from the loop: the caller is no branch of its workflow.
    """
    return _completed_async(_Waits(handles))


def _completed(waits: _Waits[T]) -> Iterator[WorkflowHandle[T]]:
    try:
        while waits.are_left:
            yield from waits.next()
    finally:
        waits.close()


async def _completed_async(waits: _Waits[T]) -> AsyncIterator[WorkflowHandle[T]]:
    try:
        while waits.are_left:
            for handle in await waits.next_async():
                yield handle
    finally:
        waits.close()


class _Waits(Generic[T]):
    """The waits for several workflows, each of which is waited for once."""

    def __init__(self, handles: Iterable[WorkflowHandle[T]]) -> None:
        given = list(handles)
        if wrong := [one for one in given if not hasattr(one, "workflow_id")]:
            msg = f"{wrong[0]!r} is no handle of a workflow: give what engine.start(...) or engine.handle(id) returns"
            raise ConfigurationError(msg)
        self._handles = {handle.workflow_id: handle for handle in given}
        if not self._handles:
            msg = "there is no handle to wait for: give at least one"
            raise ConfigurationError(msg)
        scope = current_scope()
        self._branch = scope if isinstance(scope, Branch) else None
        self._host: Host = next(iter(self._handles.values()))._host  # noqa: SLF001 (of one floor)
        self._endings = Endings()
        self._waits = {workflow_id: self._wait_for(handle) for workflow_id, handle in self._handles.items()}

    def _wait_for(self, handle: WorkflowHandle[T]) -> Callable[[], Wait]:
        core, host = handle._core, handle._host  # noqa: SLF001 (of one floor)
        if self._branch is None:
            return partial(core.outcome, handle.workflow_id)
        if self._branch.run.engine.is_of(core):
            return partial(core.outcome, handle.workflow_id, ended=True)
        self._endings.is_elsewhere = True

        async def reached() -> Ending | Outcome:
            return await host.reach(core.outcome(handle.workflow_id, ended=True))

        return reached

    @property
    def are_left(self) -> bool:
        """Whether any of the workflows was not returned yet."""
        return bool(self._waits)

    def next(self, most: int | None = None) -> list[WorkflowHandle[T]]:
        """Waits until more have ended, and returns them in the order of their ends; ``most`` of them at most."""
        if self._branch is not None:
            return self._taken(drive(next_ended(self._branch, self._endings, self._waits, most=most)))
        return self._taken(self._host.call("wait_first_async", self._endings.next_ids, self._waits)[:most])

    async def next_async(self, most: int | None = None) -> list[WorkflowHandle[T]]:
        """The awaitable twin of ``next``."""
        if self._branch is not None:
            return self._taken(await next_ended(self._branch, self._endings, self._waits, most=most))
        return self._taken((await self._host.bridge(self._endings.next_ids(self._waits)))[:most])

    def _taken(self, ids: list[str]) -> list[WorkflowHandle[T]]:
        for workflow_id in ids:
            del self._waits[workflow_id]
        return [self._handles[workflow_id] for workflow_id in ids]

    def close(self) -> None:
        """Waits for nothing any more."""
        self._endings.close()
