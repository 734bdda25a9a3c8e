"""The engine: the composition root, and the facade that a program holds."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from dbosflow._runtime.engine.core import EngineCore
from dbosflow._runtime.engine.lifecycle import Lifecycle
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.replay.branch import Branch
from dbosflow.config import DEFAULT_QUEUE, LARGEST_INTEGER, check_identifier, check_seconds, check_whole
from dbosflow.definitions import registry
from dbosflow.filters import WorkflowFilter, chosen
from dbosflow.handles import WorkflowHandle
from dbosflow.streams import StreamChannel, StreamReader
from dbosflow.streams.declared import key_of
from dbosflow.streams.inputs import check_idempotency_key, input_value_text
from dbosflow.streams.options import read_request
from dbosflow.streams.resource import Streams
from dbosflow.workflows import Workflow, WorkflowSpec, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbosflow._runtime.streams.cursor import ReadRequest
    from dbosflow.definitions import WorkflowDef
    from dbosflow.streams.declared import Stream
    from dbosflow.streams.options import OnRollback, ReadOptions
    from dbosflow.types import Resumption, StepInfo, WorkflowInfo, WorkflowStatus

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")
F = TypeVar("F")


class Engine(Lifecycle):
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

    # -- streams -----------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> Streams:
        """The streams of this database, to look at and to look after."""
        return Streams(self._host, self._core)

    @overload
    def read_stream(
        self, workflow_id: str, key: str, *, on_rollback: OnRollback = "raise", **options: Unpack[ReadOptions]
    ) -> StreamReader[Any]: ...
    @overload
    def read_stream(
        self,
        workflow_id: str,
        key: str,
        *,
        type: type[V],
        on_rollback: OnRollback = "raise",
        **options: Unpack[ReadOptions],
    ) -> StreamReader[V]: ...
    def read_stream(
        self,
        workflow_id: str,
        key: str,
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        on_rollback: OnRollback = "raise",
        **options: Unpack[ReadOptions],
    ) -> StreamReader[Any]:
        """A blocking iterable over the stream's values: those there are, then each next one as it is committed.

        Args:
            workflow_id: the writer; it may be in any process, long ended, or (see ``wait_for``) not started yet.
            key: the stream's name within the workflow.
            type: what the values are; plain JSON by default.
            on_rollback: what to do when values that were handed out are rolled back, because the attempt of the step
                that wrote them failed: ``"raise"`` ``StreamRolledBackError``, ``"ignore"`` it,
                or call a function with the ``Rollback``.
            options: ``start``, ``until``, ``view``, ``timeout`` and ``wait_for``, as
                ``ReadOptions`` explains them.
        """
        refuse_on_loop("read_stream_async")
        return self._reader(read_request(workflow_id, key, type, options), on_rollback, "read_stream_async")

    @overload
    def read_stream_async(self, workflow_id: str, key: str, **options: Unpack[ReadOptions]) -> StreamChannel[Any]: ...
    @overload
    def read_stream_async(
        self, workflow_id: str, key: str, *, type: type[V], **options: Unpack[ReadOptions]
    ) -> StreamChannel[V]: ...
    def read_stream_async(
        self,
        workflow_id: str,
        key: str,
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        **options: Unpack[ReadOptions],
    ) -> StreamChannel[Any]:
        """A channel of ``StreamValue``, the last one ``closed``. See ``read_stream``."""
        return self._channel(read_request(workflow_id, key, type, options))

    def read(
        self,
        stream: Stream[V, F],
        workflow_id: str,
        *,
        on_rollback: OnRollback = "raise",
        **options: Unpack[ReadOptions],
    ) -> StreamReader[V]:
        """``read_stream`` of a declared stream: its values are typed, and so is the final payload."""
        refuse_on_loop("read_async")
        return self._reader(stream.read_request(workflow_id, options), on_rollback, "read_async")

    def read_async(self, stream: Stream[V, F], workflow_id: str, **options: Unpack[ReadOptions]) -> StreamChannel[V]:
        """``read_stream_async`` of a declared stream: its values are typed, and so is the final payload."""
        return self._channel(stream.read_request(workflow_id, options))

    def _reader(self, request: ReadRequest, on_rollback: OnRollback, twin: str) -> StreamReader[Any]:
        cursor = self._core.cursor(request)
        return StreamReader(cursor, lambda: self._host.call(twin, self._core.next_page, cursor), on_rollback)

    def _channel(self, request: ReadRequest) -> StreamChannel[Any]:
        cursor = self._core.cursor(request)
        return StreamChannel(cursor, lambda: self._host.bridge(self._core.next_page(cursor)))

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

    def write_stream(
        self, workflow_id: str, stream: str | Stream[V, Any], value: V, *, idempotency_key: str | None = None
    ) -> int:
        """Appends ``value`` to an input of a workflow, from outside; its offset. The value is durable then.

        See ``write_stream_async``, its awaitable twin, for the idempotency key, and for what this raises.
        """
        return self._host.call("write_stream_async", self._write, workflow_id, stream, value, idempotency_key)

    async def write_stream_async(
        self, workflow_id: str, stream: str | Stream[V, Any], value: V, *, idempotency_key: str | None = None
    ) -> int:
        """Appends ``value`` to an input of a workflow, from outside; its offset. The value is durable then.

        Many may write at a time, from any process: offsets are dense, one writer's values keep their order, and none is
        lost or doubled, also when the connection breaks. The workflow may run anywhere, or still wait in its queue.

        Args:
            workflow_id: the workflow that reads it.
            stream: a key that the workflow declares, ``@workflow(inputs=["chat"])``, or such a
                ``Stream``, whose type the value then has.
            value: JSON under its type.
            idempotency_key: the same key again in this input writes nothing, and gives the offset that its first value
                has. For a writer that may crash, and begin again, between the write and the answer.

        Raises:
            StreamInputError: the workflow was not started with such an input.
            StreamClosedError: the workflow has ended, or the input was closed.
            StreamValueTooLargeError, StreamFullError: it is above this engine's ``value_bytes``, or with it the input
                would be above ``stream_values`` or ``stream_bytes``.
            WorkflowNotFoundError: no workflow has this id.
            SerializationError: the value is not of the stream's type, or JSON cannot carry it.
        """
        return await self._host.bridge(self._write(workflow_id, stream, value, idempotency_key))

    def close_stream(self, workflow_id: str, stream: str | Stream[Any, Any]) -> None:
        """Ends an input of a workflow, from outside, as complete: its reader in the workflow comes to an end.

        See ``close_stream_async``, its awaitable twin.
        """
        self._host.call("close_stream_async", self._close_input, workflow_id, stream)

    async def close_stream_async(self, workflow_id: str, stream: str | Stream[Any, Any]) -> None:
        """Ends an input of a workflow, from outside, as complete: its reader in the workflow comes to an end.

        Nothing can be written to it after that. Closing a closed input does nothing. An input that nobody closes ends
        with its workflow.

        Raises:
            StreamInputError: the workflow was not started with such an input.
            WorkflowNotFoundError: no workflow has this id.
        """
        await self._host.bridge(self._close_input(workflow_id, stream))

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

    async def _write(
        self, workflow_id: str, stream: str | Stream[Any, Any], value: object, idempotency_key: str | None
    ) -> int:
        check_identifier("workflow id", workflow_id)
        text, once = input_value_text(stream, value), check_idempotency_key(idempotency_key)
        return await self._core.append(workflow_id, key_of(stream), text, once)

    async def _close_input(self, workflow_id: str, stream: str | Stream[Any, Any]) -> None:
        await self._core.end_input(check_identifier("workflow id", workflow_id), key_of(stream))

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
