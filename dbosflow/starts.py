"""Many starts at a time: the arguments come from an iterable, however long, and go in chunks, a statement for each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from dbosflow._runtime.engine.starts import row_of
from dbosflow._runtime.execution.scope import refuse_in_body
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._store.notify import ALARM_TOPIC, queue_topic
from dbosflow._store.outbox import keyed_item, plain_item
from dbosflow.config import shown
from dbosflow.errors import ConfigurationError
from dbosflow.handles import WorkflowHandle
from dbosflow.outbox.engine_outbox import EngineOutbox, insert_all, sealed
from dbosflow.workflows import Workflow, WorkflowSpec, spec_of, start_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._store.workflow import Enqueued
    from dbosflow.config import Settings
    from dbosflow.outbox.engine_outbox import Insert

T = TypeVar("T")

Arguments: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""The arguments of one start: positional ones as a tuple or list, or named ones as a dictionary."""
Target: TypeAlias = Workflow[..., Any, T] | WorkflowSpec[..., T] | Callable[..., WorkflowSpec[..., T]]
"""What is started: the same for all, or a function of the arguments."""

_ROWS = 1000
"""Starts in one statement."""
_BYTES = 4 * 1024 * 1024
"""Characters of their arguments, after which a statement takes no more."""


class EngineStarts(EngineOutbox):
    """Starts of many workflows."""

    @overload
    def start_many(self, target: Target[T], items: Iterable[Arguments]) -> list[WorkflowHandle[T]]: ...
    @overload
    def start_many(
        self,
        target: Target[T],
        items: Iterable[Arguments],
        *,
        on_started: Callable[[list[WorkflowHandle[T]]], object],
    ) -> int: ...
    def start_many(
        self,
        target: Any,
        items: Iterable[Arguments],
        *,
        on_started: Callable[[list[WorkflowHandle[Any]]], object] | None = None,
    ) -> Any:
        """Starts a workflow for each of many sets of arguments. See ``start_many_async``, its awaitable twin."""
        refuse_on_loop("start_many_async")
        refuse_in_body()
        chunk, found = _Chunk(target, self._settings), _Found(on_started)
        for item in items:
            if chunk.add(item):
                found.add(self._host.call("start_many_async", self._start_all, chunk.take()))
        if chunk:
            found.add(self._host.call("start_many_async", self._start_all, chunk.take()))
        return found.result

    @overload
    async def start_many_async(
        self, target: Target[T], items: Iterable[Arguments] | AsyncIterable[Arguments]
    ) -> list[WorkflowHandle[T]]: ...
    @overload
    async def start_many_async(
        self,
        target: Target[T],
        items: Iterable[Arguments] | AsyncIterable[Arguments],
        *,
        on_started: Callable[[list[WorkflowHandle[T]]], object],
    ) -> int: ...
    async def start_many_async(
        self,
        target: Any,
        items: Iterable[Arguments] | AsyncIterable[Arguments],
        *,
        on_started: Callable[[list[WorkflowHandle[Any]]], object] | None = None,
    ) -> Any:
        """Starts a workflow for each of many sets of arguments, and returns the handles in their order.

        ```python
        engine.start_many(resize.options(queue="images"), [(path, 200) for path in paths])
        engine.start_many(lambda path: resize.options(workflow_id=f"resize {path}"), [(path,) for path in paths])
        ```

        The starts are durable in chunks of up to a thousand, each written whole by one statement. Any worker of the
        queue may take them; without a queue, any executing engine. The iterable is read chunk by chunk, and may be
        endless but for that the call ends with it. If it raises, or an item is wrong, or the process dies, the chunks
        before are started, and no others. So give ids to starts that are to be repeated after that: what has an id
        that is known is not started again. Not in a workflow's body; a step that is repeated needs ids, too.

        Args:
            target: the workflow, or its ``options(...)`` for all; or a function that takes the arguments of a start,
                and returns its ``options(...)``.
            items: the arguments of each start: a tuple or list of positional ones, or a dictionary of named ones.
                For the twin for asyncio it may be an asynchronous iterable.
            on_started: is called with the handles of each chunk, once it is durable. Then nothing is collected, so that
                memory stays bounded, and the number of starts is returned in place of the handles.

        Raises:
            DefinitionError: the target is no workflow.
            ConfigurationError: an item is neither a sequence nor a dictionary, or all have one ``workflow_id``.
            TypeError: the arguments do not fit the workflow's signature.
            SerializationError: JSON cannot carry the arguments under their annotations.
            WorkflowConflictError: an id, or a ``dedup_key``, belongs to another workflow function.
            DuplicateWorkflowError: a workflow has the ``dedup_key`` of a start whose ``on_duplicate`` is ``"raise"``.
        """
        refuse_in_body()
        chunk, found = _Chunk(target, self._settings), _Found(on_started)
        async for item in _each(items):
            if chunk.add(item):
                found.add(await self._host.bridge(self._start_all(chunk.take())))
        if chunk:
            found.add(await self._host.bridge(self._start_all(chunk.take())))
        return found.result

    def start_many_in(
        self, connection: Any, target: Target[T], items: Iterable[Arguments], *, notify: bool = False
    ) -> list[WorkflowHandle[T]]:
        """Starts many workflows in the transaction of a connection: they run if that commits, and never were if not.

        See ``start_many_in_async``, its twin for connections of asyncio.
        """
        refuse_on_loop("start_many_in_async")
        handles: list[WorkflowHandle[T]] = []
        for insert, started in self._to_start_all(target, items, notify=notify):
            self._write_in("start_many_in_async", connection, insert)
            handles += started
        return handles

    async def start_many_in_async(
        self, connection: Any, target: Target[T], items: Iterable[Arguments], *, notify: bool = False
    ) -> list[WorkflowHandle[T]]:
        """Starts many workflows in the transaction of a connection: they run if that commits, and never were if not.

        What ``start_in_async`` says of one start holds for each of them, also of those with a ``workflow_id`` or a
        ``dedup_key``; a thousand at most are written by a statement. Starts with one key are applied in the order of
        the items.

        Args:
            connection: as for ``start_in_async``.
            target: as for ``start_many_async``.
            items: as for ``start_many_async``; an iterable that is not asynchronous.
            notify: as for ``start_in_async``.

        Raises:
            DbosflowError: what ``start_in_async`` raises.
            ConfigurationError: an item is neither a sequence nor a dictionary, or all have one ``workflow_id``.
            TypeError: the arguments do not fit the workflow's signature.
        """
        handles: list[WorkflowHandle[T]] = []
        for insert, started in self._to_start_all(target, items, notify=notify):
            await self._write_in_async(connection, insert)
            handles += started
        return handles

    def _to_start_all(
        self, target: Any, items: Iterable[Arguments], *, notify: bool
    ) -> Iterator[tuple[Insert, list[WorkflowHandle[Any]]]]:
        refuse_in_body()
        chunk = _Chunk(target, self._settings)
        for item in items:
            if chunk.add(item):
                yield from self._inserts(chunk.take(), notify=notify)
        yield from self._inserts(chunk.take(), notify=notify)

    def _inserts(
        self, starts: list[tuple[Enqueued, StartRequest]], *, notify: bool
    ) -> Iterator[tuple[Insert, list[WorkflowHandle[Any]]]]:
        """The statements that write these starts: of those that follow each other and go the same way, one."""
        for statement, group in itertools.groupby(starts, _statement_of):
            rows: list[Enqueued] = []
            handles: list[WorkflowHandle[Any]] = []
            topics: dict[str, None] = {}
            for row, request in group:
                rows.append(sealed(row, self._settings))
                handles.append(WorkflowHandle(self._host, self._core, row.workflow_id, request.definition))
                if statement == "start_all":
                    topics[queue_topic(row.queue)] = None
                    if request.is_urgent(self._settings.safety_poll):
                        topics[ALARM_TOPIC] = None
            as_item = keyed_item if statement == "put_keyed" else plain_item
            yield insert_all(statement, [*map(as_item, rows)], notify=notify, topics=topics), handles

    async def _start_all(self, starts: list[tuple[Enqueued, StartRequest]]) -> list[WorkflowHandle[Any]]:
        ids = await self._core.start_all([row for row, _ in starts])
        return [
            WorkflowHandle(self._host, self._core, workflow_id, request.definition)
            for workflow_id, (_, request) in zip(ids, starts, strict=True)
        ]


def _statement_of(start: tuple[Enqueued, StartRequest]) -> str:
    """How a start is written in a user's transaction: an id that the engine has made is nobody else's."""
    row, request = start
    if row.dedup is not None:
        return "put_keyed"
    return "start_all" if request.workflow_id is None else "put_all"


class _Chunk:
    """The starts that go together."""

    def __init__(self, target: Any, settings: Settings) -> None:
        self._choose = target if _is_choice(target) else None
        self._spec = None if self._choose else spec_of(target)
        if self._spec is not None and self._spec.workflow_id is not None:
            msg = (
                "all starts would have one workflow_id: give a function that returns each one's options: "
                "as lambda x: f.options(workflow_id=...)"
            )
            raise ConfigurationError(msg)
        self._settings = settings
        self._starts: list[tuple[Enqueued, StartRequest]] = []
        self._bytes = 0
        self._count = 0

    def add(self, item: Arguments) -> bool:
        """Adds a start; returns whether the chunk is full."""
        try:
            request = self._request(item)
            request.decide_version(self._settings.version)
            row = row_of(request, self._settings)
        except Exception as error:
            durable = self._count - len(self._starts)
            error.add_note(f"This is item {self._count} of start_many. The first {durable} are started, no others.")
            raise
        self._count += 1
        self._bytes += len(row.input)
        self._starts.append((row, request))
        return len(self._starts) >= _ROWS or self._bytes >= _BYTES

    def take(self) -> list[tuple[Enqueued, StartRequest]]:
        """What has gathered, for the next statement."""
        starts, self._starts, self._bytes = self._starts, [], 0
        return starts

    def __bool__(self) -> bool:
        return bool(self._starts)

    def _request(self, item: Arguments) -> StartRequest:
        args, kwargs = _arguments(item)
        return start_request(self._choose(*args, **kwargs) if self._choose else self._spec, args, kwargs)


class _Found:
    """What a call of ``start_many`` has started so far."""

    def __init__(self, on_started: Callable[[list[WorkflowHandle[Any]]], object] | None) -> None:
        self._on_started = on_started
        self._handles: list[WorkflowHandle[Any]] = []
        self._count = 0

    def add(self, handles: list[WorkflowHandle[Any]]) -> None:
        """The next ones."""
        self._count += len(handles)
        if self._on_started is None:
            self._handles += handles
        else:
            self._on_started(handles)

    @property
    def result(self) -> list[WorkflowHandle[Any]] | int:
        """What the call returns."""
        return self._handles if self._on_started is None else self._count


def _is_choice(target: object) -> bool:
    """Whether the target is a function that returns the options of each start."""
    return callable(target) and not isinstance(target, Workflow | MethodType)


def _arguments(item: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(item, Mapping):
        return (), dict(item)
    if isinstance(item, Sequence) and not isinstance(item, str | bytes):
        return tuple(item), {}
    msg = (
        f"{shown(item)} must be the arguments of a start: a tuple of positional ones, as (x,), or a dictionary of "
        "named ones"
    )
    raise ConfigurationError(msg)


async def _each(items: Iterable[Arguments] | AsyncIterable[Arguments]) -> AsyncIterator[Arguments]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
