"""The engine: the composition root, and the facade that a program holds."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from dbosflow._runtime.engine.core import EngineCore
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.replay.branch import Branch
from dbosflow.config import DEFAULT_QUEUE, LARGEST_INTEGER, check_identifier, check_seconds, check_whole
from dbosflow.definitions import registry
from dbosflow.filters import WorkflowFilter, chosen
from dbosflow.handles import WorkflowHandle
from dbosflow.streams.engine_streams import EngineStreams
from dbosflow.workflows import Workflow, WorkflowSpec, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbosflow.definitions import WorkflowDef
    from dbosflow.types import Resumption, StepInfo, WorkflowInfo, WorkflowStatus

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")
F = TypeVar("F")


class Engine(EngineStreams):
    """Durable workflows on one Postgres database.

    ``with Engine(url) as engine`` hosts the engine on a thread of its own; ``async with`` hosts it on the running loop.
    Where Postgres comes from: ``url``, else ``DBOSFLOW_DATABASE_URL``, else an embedded server in ``data_dir``
    (``./.dbosflow``), for development.

    Args:
        url: a ``postgresql://`` URL or a libpq connection string.
        executes: whether workflows run in this process; ``False`` makes a client, whose starts are enqueued.
        data_dir: where an embedded server keeps its data.
        settings: see ``Settings``: ``lease=10.0``, ``schema="dbosflow"`` and the like.
    """

    # -- workflows ---------------------------------------------------------------------------------------------------

    @overload
    def start(self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]: ...
    @overload
    def start(self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]: ...
    def start(self, target: Any, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Starts a workflow; returns a handle when the start is durable, and does not wait for its end.

        The workflow id is the idempotency key. See ``start_async``, its awaitable twin, for where it runs, and for
        what this raises.
        """
        if self._runs_caller:
            return spec_of(target).start(*args, **kwargs)
        return self._host.call("start_async", self._start, target, args, kwargs)

    @overload
    async def start_async(
        self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    @overload
    async def start_async(
        self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    async def start_async(self, target: Any, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Starts a workflow; returns when the start is durable.

        It runs in this process, or, with ``options(queue=...)`` or from a client, on a worker of that queue. The
        workflow id is the idempotency key: an id that stands already gives the existing execution. In the body of a
        workflow of this engine it starts a child, as the workflow's own ``start_async`` does.

        Raises:
            SerializationError: the arguments are not JSON under their annotations.
            WorkflowConflictError: the id belongs to another workflow function.
        """
        if self._runs_caller:
            return await spec_of(target).start_async(*args, **kwargs)
        return await self._host.bridge(self._start(target, args, kwargs))

    @overload
    def run(self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def run(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Starts a workflow, waits for its end, and gives its result, or raises its error.

        ``start`` and the handle's ``result`` in one. Its awaitable twin is ``run_async``.
        """
        if self._runs_caller:
            return spec_of(target).start(*args, **kwargs).result()
        return self._host.call("run_async", self._run, target, args, kwargs)

    @overload
    async def run_async(self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run_async(self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def run_async(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Starts a workflow and waits for its result; in the body of a workflow of this engine, as a child of it."""
        if self._runs_caller:
            return await (await spec_of(target).start_async(*args, **kwargs)).result_async()
        return await self._host.bridge(self._run(target, args, kwargs))

    @overload
    def handle(self, workflow_id: str) -> WorkflowHandle[Any]: ...
    @overload
    def handle(self, workflow_id: str, target: Workflow[..., Any, T]) -> WorkflowHandle[T]: ...
    def handle(self, workflow_id: str, target: Workflow[..., Any, Any] | None = None) -> WorkflowHandle[Any]:
        """A handle to a workflow of any process. Does no I/O; ``target`` gives the result its type."""
        check_identifier("workflow id", workflow_id)
        definition = None if target is None else spec_of(target).definition
        return WorkflowHandle(self._host, self._core, workflow_id, definition)

    def list_workflows(
        self,
        which: WorkflowFilter | None = None,
        *,
        status: WorkflowStatus | str | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit: int | None = None,
    ) -> list[WorkflowInfo]:
        """The workflows that fit all that is asked for, newest first: ``list_workflows(status="failed", limit=20)``.

        See ``list_workflows_async``, its awaitable twin.
        """
        found = self._core.repository.workflows
        return self._host.call("list_workflows_async", found, chosen(which, status, name, queue, limit))

    async def list_workflows_async(
        self,
        which: WorkflowFilter | None = None,
        *,
        status: WorkflowStatus | str | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit: int | None = None,
    ) -> list[WorkflowInfo]:
        """The workflows that fit all that is asked for, newest first.

        Args:
            which: all of it in one ``WorkflowFilter``, instead of the words that follow.
            status: where they stand.
            name: of their function: qualified, or as ``@workflow(name=...)`` says.
            queue: in which they wait, or were.
            limit: at most so many (100).
        """
        which = chosen(which, status, name, queue, limit)
        return await self._host.bridge(self._core.repository.workflows(which))

    def resume(self, workflow_id: str) -> Resumption:
        """Lets a workflow go on that is parked as ``blocked``; says what came of that.

        See ``resume_async``, its awaitable twin.
        """
        return self._host.call("resume_async", self._core.resume, check_identifier("workflow id", workflow_id))

    async def resume_async(self, workflow_id: str) -> Resumption:
        """Lets a workflow go on that is parked as ``blocked``; says what came of that.

        It goes back to its queue, and a worker that knows its function takes it at once and replays it: put the code
        that its records follow from there first, or it is blocked again. Deaths of its workers are counted anew. A
        workflow that is not blocked stays as it is.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._host.bridge(self._core.resume(check_identifier("workflow id", workflow_id)))

    def list_steps(self, workflow_id: str) -> list[StepInfo]:
        """A workflow's records, in the order they were made. Its awaitable twin is ``list_steps_async``."""
        check_identifier("workflow id", workflow_id)
        return self._host.call("list_steps_async", self._core.repository.steps, workflow_id)

    async def list_steps_async(self, workflow_id: str) -> list[StepInfo]:
        """A workflow's records, in the order they were made."""
        check_identifier("workflow id", workflow_id)
        return await self._host.bridge(self._core.repository.steps(workflow_id))

    # -- retention ---------------------------------------------------------------------------------------------------

    def prune(self, *, older_than: timedelta | float, batch: int = 100, dry_run: bool = False) -> int:
        """Removes the workflows that ended longer ago, with their records and streams; gives how many.

        ``older_than`` is in seconds, or a ``timedelta``. See ``prune_async``, its awaitable twin.
        """
        return self._host.call("prune_async", self._core.repository.prune, *_age(older_than, batch), dry_run)

    async def prune_async(self, *, older_than: timedelta | float, batch: int = 100, dry_run: bool = False) -> int:
        """Removes the workflows that ended longer ago, with their records and streams; gives how many.

        Each transaction takes up to ``batch`` of them, oldest first. One whose parent still runs stays; so does one
        with inputs, while a statement or snapshot is open in the database that began before its end. The id of a
        removed workflow is free again: the same start would run it anew.

        Args:
            older_than: how long ago it ended, in seconds or as a ``timedelta``.
            batch: how many go at a time.
            dry_run: nothing is removed; gives how many would go now.
        """
        return await self._host.bridge(self._core.repository.prune(*_age(older_than, batch), dry_run))

    # -- workers -----------------------------------------------------------------------------------------------------

    def run_worker(self, *queues: str, concurrency: int = 50) -> None:
        """Runs the work of these queues (default: ``default``), each up to ``concurrency`` at once; blocks.

        Until the engine closes. Its awaitable twin, ``run_worker_async``, can be cancelled as well.
        """
        self._host.call("run_worker_async", self._core.work, _queues(queues, concurrency))

    async def run_worker_async(self, *queues: str, concurrency: int = 50) -> None:
        """Runs the work of these queues (default: ``default``), each up to ``concurrency`` at once.

        Until it is cancelled, or the engine closes.
        """
        await self._host.bridge(self._core.work(_queues(queues, concurrency)))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _new_core(self, url: str) -> EngineCore:
        def make_handle(workflow_id: str, definition: WorkflowDef | None) -> WorkflowHandle[Any]:
            return WorkflowHandle(self._host, core, workflow_id, definition)

        core = EngineCore(url, self._settings, registry, make_handle)
        return core

    async def _start(self, target: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> WorkflowHandle[Any]:
        spec = spec_of(target)
        workflow_id = await self._core.start(
            *(spec.definition, spec.receiver + args, kwargs),
            workflow_id=spec.workflow_id,
            queue=spec.queue,
            priority=spec.priority,
        )
        return WorkflowHandle(self._host, self._core, workflow_id, spec.definition)

    async def _run(self, target: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        spec = spec_of(target)
        return await self._core.run(
            *(spec.definition, spec.receiver + args, kwargs),
            workflow_id=spec.workflow_id,
            queue=spec.queue,
            priority=spec.priority,
        )

    @property
    def _runs_caller(self) -> bool:
        """Whether the caller is the body of a workflow that this engine runs."""
        scope = current_scope()
        return isinstance(scope, Branch) and scope.run.engine.is_of(self._core)


def _age(older_than: timedelta | float, batch: int) -> tuple[float, int]:
    seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
    return check_seconds("older_than", seconds), check_whole("batch", batch, 1, LARGEST_INTEGER)


def _queues(queues: Iterable[str], concurrency: int) -> dict[str, int]:
    check_whole("concurrency", concurrency, 1, LARGEST_INTEGER)
    return {check_identifier("queue", queue): concurrency for queue in queues or (DEFAULT_QUEUE,)}
