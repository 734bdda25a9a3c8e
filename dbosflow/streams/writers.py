"""Writing to the streams of the running workflow: one value at a time, or through a writer."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dbosflow import serde
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.recorded_values import load
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.scope import PlainCall
from dbosflow._runtime.operations import writing
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.config import check_identifier
from dbosflow.failures import dump_error
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from dbosflow._runtime.execution.scope import Scope
    from dbosflow._runtime.operations.writing import OnRetry
    from dbosflow.serde import Codec

C = TypeVar("C")
F = TypeVar("F")


def write_stream(key: str, value: Any) -> None:
    """Appends ``value`` to the stream ``key`` of the running workflow, in a sync workflow or step.

    Returns when the value is buffered. See ``write_stream_async``, its awaitable twin, for when it is durable, and
    for what this raises.
    """
    refuse_on_loop("await write_stream_async(...)")
    scope, text = _checked(key, value, "write_stream")
    drive(writing.write_on_thread(scope, key, text, "write_stream"))


async def write_stream_async(key: str, value: Any) -> None:
    """Appends ``value`` to the stream ``key`` of the running workflow.

    Returns when the value is buffered; it is durable with or before the workflow's next record, and at once when
    nothing else is under way. From a workflow's body each value is written exactly once, whatever crashes. From a step
    it is live at once, and rolled back if the attempt does not succeed. Waits before that while more than the engine's
    ``buffer_bytes`` are not durable. Where it raises, nothing was written, and a replay raises the same.

    Raises:
        StreamClosedError: the stream is closed.
        StreamValueTooLargeError: JSON makes more than ``value_bytes`` of ``value``.
        StreamFullError: the stream has had its ``stream_values`` or ``stream_bytes``.
        StreamBackPressureError: there was no room within ``buffer_timeout``.
        SerializationError: JSON cannot carry ``value``.
        NotInWorkflowError: no workflow or step is running here.
    """
    scope, text = _checked(key, value, "write_stream_async")
    await writing.write_on_loop(scope, key, text, "write_stream_async")


def close_stream(key: str) -> None:
    """Ends the stream ``key`` of the running workflow as complete; readers are notified at once.

    See ``close_stream_async``, its awaitable twin.
    """
    refuse_on_loop("await close_stream_async(...)")
    writing.close(writing.writer("close_stream"), check_identifier("stream key", key), "close_stream")


async def close_stream_async(key: str) -> None:
    """Ends the stream ``key`` of the running workflow as complete; readers are notified at once.

    Nothing can be written to it after that. Closing a closed stream does nothing. Readers see a step's end when the
    step succeeds, and where other steps have written to the stream, when they are done. Streams that a workflow leaves
    open end with it, in the transaction that ends it.
    """
    writing.close(writing.writer("close_stream_async"), check_identifier("stream key", key), "close_stream_async")


def _checked(key: str, value: Any, what: str) -> tuple[Scope, str]:
    scope = writing.writer(what)
    check_identifier("stream key", key)
    return scope, serde.dump_undeclared(value, "a stream's value")


class StreamWriter(Generic[C, F]):
    """Writes to one stream, for the branch or step that made it. Made by ``Stream.writer``.

    As a context manager it closes the stream at the end of the block. An exception that leaves the block ends the
    stream with that error; in a step it leaves the stream alone, because another attempt may follow.
    """

    def __init__(self, key: str, on_retry: OnRetry, chunks: Codec[C], final: Codec[F]) -> None:
        self._key = key
        self._chunks = chunks
        self._final = final
        self._scope = writing.writer("a stream's writer")
        self._dropped = 0
        writing.set_on_retry(self._scope, key, on_retry)

    # -- values ------------------------------------------------------------------------------------------------------

    def write(self, value: C) -> None:
        """Appends a value of the stream's type: see ``write_stream``. Its awaitable twin is ``write_async``."""
        refuse_on_loop("await writer.write_async(...)")
        drive(writing.write_on_thread(self._scope, self._key, self._chunks.dump(value), "a stream's writer"))
        self._dropped += isinstance(self._scope, PlainCall)

    async def write_async(self, value: C) -> None:
        """Appends a value: see ``write_stream_async``.

        Raises:
            SerializationError: the value is not of the stream's type, or JSON cannot carry it.
            StreamClosedError: the stream is closed.
        """
        await writing.write_on_loop(self._scope, self._key, self._chunks.dump(value), "a stream's writer")
        self._dropped += isinstance(self._scope, PlainCall)

    def write_many(self, values: Iterable[C]) -> None:
        """Appends each of the values as it comes. Its awaitable twin is ``write_many_async``."""
        for value in values:
            self.write(value)

    async def write_many_async(self, values: Iterable[C] | AsyncIterable[C]) -> None:
        """Appends each of the values as it comes."""
        if isinstance(values, AsyncIterable):
            async for value in values:
                await self.write_async(value)
        else:
            for value in values:
                await self.write_async(value)

    def flush(self) -> None:
        """Waits until what was written is durable. Its awaitable twin is ``flush_async``."""
        refuse_on_loop("await writer.flush_async()")
        if not isinstance(self._scope, PlainCall):
            drive(writing.flush(self._scope.run.thread_driver, self._scope))

    async def flush_async(self) -> None:
        """Waits until what was written is durable."""
        if not isinstance(self._scope, PlainCall):
            await writing.flush(self._scope.run.loop_driver, self._scope)

    def emitted(self) -> list[C]:
        """What stands in the stream from this writer, also from earlier attempts with ``on_retry="resume"``.

        See ``emitted_async``, its awaitable twin.
        """
        refuse_on_loop("await writer.emitted_async()")
        if isinstance(self._scope, PlainCall):
            return []
        return self._loaded(drive(writing.emitted(self._scope.run.thread_driver, self._scope, self._key)))

    async def emitted_async(self) -> list[C]:
        """What stands in the stream from this writer: with ``on_retry="resume"``, also from earlier attempts.

        Flushes first. A generator that was interrupted can so go on where it stopped. In a workflow's body it is what
        the body has written by then, in a replay too.
        """
        if isinstance(self._scope, PlainCall):
            return []
        return self._loaded(await writing.emitted(self._scope.run.loop_driver, self._scope, self._key))

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self, final: F | None = None) -> None:
        """Ends the stream as complete. Readers find ``final`` in their ``outcome``. Awaitable: ``close_async``."""
        refuse_on_loop("await writer.close_async(...)")
        self._close(FrameKind.COMPLETE, None if final is None else self._final.dump(final))

    async def close_async(self, final: F | None = None) -> None:
        """Ends the stream as complete. Readers find ``final`` in their ``outcome``. See ``close_stream_async``."""
        self._close(FrameKind.COMPLETE, None if final is None else self._final.dump(final))

    def fail(self, error: BaseException) -> None:
        """Ends the stream with an error: readers get ``StreamFailedError`` with it as the cause.

        Its awaitable twin is ``fail_async``.
        """
        refuse_on_loop("await writer.fail_async(...)")
        self._close(FrameKind.ERROR, dump_error(error))

    async def fail_async(self, error: BaseException) -> None:
        """Ends the stream with an error: readers get ``StreamFailedError`` with it as the cause."""
        self._close(FrameKind.ERROR, dump_error(error))

    # -- how it stands -----------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """How many values this writer has written; with ``on_retry="resume"``, earlier attempts included."""
        return self._dropped if isinstance(self._scope, PlainCall) else writing.written(self._scope, self._key)

    @property
    def writable(self) -> bool:
        """Whether a value would be taken at once: the stream is open and there is room in the buffer."""
        return isinstance(self._scope, PlainCall) or self._scope.run.streams.takes(self._key)

    @property
    def cancelled(self) -> bool:
        """Whether the workflow was asked to end."""
        return not isinstance(self._scope, PlainCall) and self._scope.run.cancelled

    def on_cancel(self, tell: Callable[[], object]) -> None:
        """Calls ``tell`` when the workflow is asked to end, from the event loop's thread; at once if it was already."""
        if not isinstance(self._scope, PlainCall):
            self._scope.run.when_cancelled(tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, Exception) and not isinstance(self._scope, StepAttempt):
            self.fail(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.close_async()
        elif isinstance(error, Exception) and not isinstance(self._scope, StepAttempt):
            await self.fail_async(error)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _close(self, kind: FrameKind, payload: str | None) -> None:
        writing.close(self._scope, self._key, "a stream's writer", kind, payload)

    def _loaded(self, texts: list[str]) -> list[C]:
        if isinstance(self._scope, PlainCall):
            return []
        return [load(self._scope.run, self._chunks, text, f"stream {self._key!r}") for text in texts]
