"""Durable streams: written from workflows and steps, read from anywhere.

A stream is named by its workflow and a key. Its values have the offsets 0, 1, 2 ... and never change; a reader that
keeps the offset of its last value resumes behind it, in any process, during the workflow or long after it. The end of
a stream is no value: it comes with the workflow's end, or with :func:`close_stream`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dbosflow import serde
from dbosflow._runtime import writing
from dbosflow._runtime.branch import Branch
from dbosflow._runtime.hands import drive
from dbosflow._runtime.host import refuse_on_loop
from dbosflow._runtime.reading import next_page
from dbosflow._runtime.scope import current_scope
from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError, NotInWorkflowError, WorkflowBlockedError
from dbosflow.serde import Codec
from dbosflow.types import StreamOutcome, StreamValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from dbosflow._runtime.reader import Reader

T = TypeVar("T")

__all__ = [
    "StreamChannel",
    "StreamReader",
    "StreamValue",
    "close_stream",
    "close_stream_async",
    "read_stream",
    "read_stream_async",
    "write_stream",
    "write_stream_async",
]


def write_stream(key: str, value: Any) -> None:
    """Blocking twin of :func:`write_stream_async`, for sync workflows and steps."""
    refuse_on_loop("await write_stream_async(...)")
    drive(writing.wait_for_room(_write(key, value, "write_stream")))


async def write_stream_async(key: str, value: Any) -> None:
    """Appends ``value`` to the stream ``key`` of the running workflow.

    Returns when the value is buffered; it is durable with or before the workflow's next record, and at once when
    nothing else is under way. From a workflow's body each value is written exactly once, whatever crashes; from a
    step, values carry the attempt that wrote them. Waits while more than the engine's ``buffer_bytes`` are not durable.

    Raises:
        StreamClosedError: the stream is closed.
        SerializationError: JSON cannot carry ``value``.
        NotInWorkflowError: no workflow or step is running here.
    """
    await writing.breathe(_write(key, value, "write_stream_async"))


def close_stream(key: str) -> None:
    """Blocking twin of :func:`close_stream_async`."""
    refuse_on_loop("await close_stream_async(...)")
    writing.close(check_identifier("stream key", key), "close_stream")


async def close_stream_async(key: str) -> None:
    """Ends the stream ``key`` of the running workflow as complete; readers are told at once.

    Nothing can be written to it after that. Closing a closed stream does nothing. Streams that a workflow leaves open
    end with it, in the transaction that ends it.
    """
    writing.close(check_identifier("stream key", key), "close_stream_async")


def _write(key: str, value: Any, what: str) -> Any:
    return writing.write(check_identifier("stream key", key), _values.dump(value), what)


_values: serde.Codec[Any] = serde.Codec(Any, "a stream's value")


class StreamReader(Iterator[T], Generic[T]):
    """A blocking iterator over the values of a stream, live: it waits for each next one until the stream ends.

    After the last value of a stream that ended badly it raises :class:`~dbosflow.errors.StreamFailedError` (the
    workflow's exception is its cause) or :class:`~dbosflow.errors.StreamCancelledError`. A
    :class:`~dbosflow.errors.StreamTimeoutError` or :class:`~dbosflow.errors.WorkflowBlockedError` leaves it usable.
    """

    def __init__(self, reader: Reader, next_page: Callable[[], None]) -> None:
        self._reader = reader
        self._next_page = next_page

    @property
    def offset(self) -> int:
        """The offset to resume at: that of the first value that was not handed out."""
        return self._reader.offset

    @property
    def outcome(self) -> StreamOutcome | None:
        """How the stream ended, once its last value was handed out."""
        return self._reader.outcome

    @property
    def closed(self) -> bool:
        """Whether the stream has ended and its last value was handed out."""
        return self._reader.outcome is not None

    def __next__(self) -> T:
        while True:
            item = self._reader.take()
            if item is not None:
                value: T = item.value
                return value
            outcome = self._reader.outcome
            if outcome is not None:
                if outcome.error is not None:
                    raise outcome.error
                raise StopIteration
            self._next_page()

    def __iter__(self) -> Self:
        return self

    def read_all(self) -> tuple[list[T], bool]:
        """The values from here to the end, and whether the stream is closed.

        Waits for the end. How it ended is in :attr:`outcome`, nothing is raised for it. ``closed`` is false only when
        the workflow is blocked: then more may come when it is resumed.
        """
        values: list[T] = []
        while True:
            while (item := self._reader.take()) is not None:
                values.append(item.value)
            if self._reader.outcome is not None:
                return values, True
            try:
                self._next_page()
            except WorkflowBlockedError:
                return values, False

    def close(self) -> None:
        """Forgets the stream. A reader holds nothing but its page; dropping it is as good."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class StreamChannel(AsyncIterator[StreamValue[T]], Generic[T]):
    """An async iterator over the items of a stream, live.

    The last item has ``closed`` set, and ``error`` if the stream ended badly.

    Where the workflow is blocked, the last item has an ``error`` and is not ``closed``.
    """

    def __init__(self, reader: Reader, next_page: Callable[[], Awaitable[None]]) -> None:
        self._reader = reader
        self._next_page = next_page
        self._ended = False

    @property
    def offset(self) -> int:
        """The offset to resume at: that of the first value that was not handed out."""
        return self._reader.offset

    @property
    def outcome(self) -> StreamOutcome | None:
        """How the stream ended, once its last value was handed out."""
        return self._reader.outcome

    async def __anext__(self) -> StreamValue[T]:
        if self._ended:
            raise StopAsyncIteration
        while True:
            item = self._reader.take()
            if item is not None:
                return StreamValue(item.value, item.offset)
            outcome = self._reader.outcome
            if outcome is not None:
                self._ended = True
                return _last(self._reader.offset, outcome.error, closed=True)
            try:
                await self._next_page()
            except WorkflowBlockedError as error:
                self._ended = True
                return _last(self._reader.offset, error, closed=False)

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Forgets the stream. A channel holds nothing but its page; dropping it is as good."""
        self._ended = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


@overload
def read_stream(
    workflow_id: str, key: str, *, start: int = 0, timeout: float | None = None, wait_for: float = 0.0
) -> StreamReader[Any]: ...
@overload
def read_stream(
    workflow_id: str,
    key: str,
    *,
    start: int = 0,
    timeout: float | None = None,
    wait_for: float = 0.0,
    type: type[T],
) -> StreamReader[T]: ...
def read_stream(
    workflow_id: str,
    key: str,
    *,
    start: int = 0,
    timeout: float | None = None,
    wait_for: float = 0.0,
    type: Any = None,  # noqa: A002 (the word of the public interface)
) -> StreamReader[Any]:
    """Inside a sync workflow: reads another workflow's stream. Like ``engine.read_stream``; a replay reads the same."""
    refuse_on_loop("read_stream_async(...)")
    scope = _reading_branch("read_stream")
    reader = scope.run.family.reader(
        **reading(workflow_id, key, start=start, timeout=timeout, wait_for=wait_for, type_=type)
    )
    return StreamReader(reader, lambda: drive(next_page(scope.run.thread_hands, scope, reader)))


@overload
def read_stream_async(
    workflow_id: str, key: str, *, start: int = 0, timeout: float | None = None, wait_for: float = 0.0
) -> StreamChannel[Any]: ...
@overload
def read_stream_async(
    workflow_id: str,
    key: str,
    *,
    start: int = 0,
    timeout: float | None = None,
    wait_for: float = 0.0,
    type: type[T],
) -> StreamChannel[T]: ...
def read_stream_async(
    workflow_id: str,
    key: str,
    *,
    start: int = 0,
    timeout: float | None = None,
    wait_for: float = 0.0,
    type: Any = None,  # noqa: A002 (the word of the public interface)
) -> StreamChannel[Any]:
    """Inside an async workflow: a channel of another workflow's stream. A replay reads the same pages."""
    scope = _reading_branch("read_stream_async")
    reader = scope.run.family.reader(
        **reading(workflow_id, key, start=start, timeout=timeout, wait_for=wait_for, type_=type)
    )
    return StreamChannel(reader, lambda: next_page(scope.run.loop_hands, scope, reader))


def reading(
    workflow_id: str,
    key: str,
    *,
    start: int,
    timeout: float | None,
    wait_for: float,
    type_: Any,
) -> dict[str, Any]:
    """The arguments of a reader, checked."""
    if start < 0:
        msg = f"start={start!r} must be an offset, 0 or more"
        raise ConfigurationError(msg)
    return {
        "workflow_id": check_identifier("workflow id", workflow_id),
        "key": check_identifier("stream key", key),
        "start": start,
        "timeout": timeout,
        "wait_for": wait_for,
        "codec": None if type_ is None else Codec(list[type_], f"stream {key!r} of workflow {workflow_id!r}"),
    }


def _reading_branch(what: str) -> Branch:
    scope = current_scope.get()
    if isinstance(scope, Branch):
        return scope
    msg = f"{what} reads inside a workflow's body; anywhere else use engine.{what}(...)"
    raise NotInWorkflowError(msg)


def _last(offset: int, error: BaseException | None, *, closed: bool) -> StreamValue[Any]:
    return StreamValue(None, offset, closed=closed, error=error)
