"""Writers to the streams of the running workflow: functions for one value, and the ``StreamWriter``."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dbosflow import serde
from dbosflow._records.spaces import check_own_key
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.recorded_values import load
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.scope import PlainCall
from dbosflow._runtime.operations import writing
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.failures import dump_error
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from dbosflow._runtime.operations.writing import OnRetry
    from dbosflow.serde import Codec

C = TypeVar("C")
F = TypeVar("F")

_WRITER = "a stream's writer"
"""What errors call it."""


def write_stream(key: str, value: Any) -> None:
    """Appends ``value`` to the stream ``key`` of the running workflow, in a sync workflow or step.

    Returns when the value is buffered. See ``write_stream_async``, its awaitable twin, for what that guarantees, and
    for the errors.
    """
    refuse_on_loop("await write_stream_async(...)")
    scope = writing.writer("write_stream")
    check_own_key(key)
    text = serde.dump_undeclared(value, "a stream's value")
    drive(writing.write(scope, key, text, "write_stream", on_loop=False))


async def write_stream_async(key: str, value: Any) -> None:
    """Appends ``value`` to the stream ``key`` of the running workflow.

    Returns when the value is buffered. The value becomes durable with or before the workflow's next record, and at once
    if nothing else is being written. While more than the engine's ``buffer_bytes`` are not durable, the call waits
    first.

    Each value from a workflow's body is written exactly once, whatever crashes. A value from a step is visible at once,
    and is rolled back if the attempt does not succeed. If the call raises, nothing was written, and a replay raises the
    same error.

    Args:
        key: the stream's key: a text of 1 to 512 bytes in UTF-8.
        value: a value that JSON can carry as one of its class.

    Raises:
        StreamClosedError: the stream is closed.
        StreamValueTooLargeError: the JSON of ``value`` is larger than ``value_bytes``.
        StreamFullError: the stream has reached its ``stream_values`` or ``stream_bytes``.
        StreamBackPressureError: there was no room within ``buffer_timeout``.
        StreamInputError: the stream is an input of the workflow.
        SerializationError: JSON cannot carry ``value``.
        NotInWorkflowError: no workflow or step is running here.
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: the key is not valid.
    """
    scope = writing.writer("write_stream_async")
    check_own_key(key)
    text = serde.dump_undeclared(value, "a stream's value")
    await writing.write(scope, key, text, "write_stream_async", on_loop=True)


def close_stream(key: str) -> None:
    """Closes the stream ``key`` of the running workflow as complete; readers are notified at once.

    See ``close_stream_async``, its awaitable twin, for the errors.
    """
    refuse_on_loop("await close_stream_async(...)")
    writing.close(writing.writer("close_stream"), check_own_key(key), "close_stream")


async def close_stream_async(key: str) -> None:
    """Closes the stream ``key`` of the running workflow as complete; readers are notified at once.

    Nothing can be written to the stream any more. Closing a closed stream does nothing. If a step closes the stream,
    readers see the end when the step succeeds and all other steps that have written to the stream are done. Streams
    that a workflow leaves open end with it, in the transaction that ends it.

    Args:
        key: the stream's key.

    Raises:
        StreamInputError: the stream is an input of the workflow.
        NotInWorkflowError: no workflow or step is running here.
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: the key is not valid.
    """
    writing.close(writing.writer("close_stream_async"), check_own_key(key), "close_stream_async")


class StreamWriter(Generic[C, F]):
    """Writes to one stream, for the branch or step that made it with ``Stream.writer``.

    As a context manager it closes the stream at the end of the block. An exception that leaves the block ends the
    stream with that error. In a step the exception leaves the stream open, because another attempt may follow.
    """

    def __init__(self, key: str, on_retry: OnRetry, chunks: Codec[C], final: Codec[F]) -> None:
        self._key = key
        self._chunks = chunks
        self._final = final
        self._scope = writing.writer(_WRITER)
        self._dropped = 0
        writing.set_on_retry(self._scope, key, on_retry)

    # -- values ------------------------------------------------------------------------------------------------------

    def write(self, value: C) -> None:
        """Appends a value of the stream's type. See ``write_async``, its awaitable twin."""
        refuse_on_loop("await writer.write_async(...)")
        drive(writing.write(self._scope, self._key, self._chunks.dump(value), _WRITER, on_loop=False))
        self._dropped += isinstance(self._scope, PlainCall)

    async def write_async(self, value: C) -> None:
        """Appends a value of the stream's type, like ``write_stream_async``.

        Raises:
            SerializationError: the value is not of the stream's type, or JSON cannot carry it.
            StreamClosedError: the stream is closed.
            StreamError: the other errors of ``write_stream_async``.
        """
        await writing.write(self._scope, self._key, self._chunks.dump(value), _WRITER, on_loop=True)
        self._dropped += isinstance(self._scope, PlainCall)

    def write_many(self, values: Iterable[C]) -> None:
        """Appends each value as it comes. See ``write_many_async``, its awaitable twin."""
        for value in values:
            self.write(value)

    async def write_many_async(self, values: Iterable[C] | AsyncIterable[C]) -> None:
        """Appends each value as it comes, like ``write_async``."""
        if isinstance(values, AsyncIterable):
            async for value in values:
                await self.write_async(value)
        else:
            for value in values:
                await self.write_async(value)

    def flush(self) -> None:
        """Waits until all written values are durable. See ``flush_async``, its awaitable twin."""
        refuse_on_loop("await writer.flush_async()")
        if not isinstance(self._scope, PlainCall):
            drive(writing.flush(self._scope.run.thread_driver, self._scope))

    async def flush_async(self) -> None:
        """Waits until all written values are durable."""
        if not isinstance(self._scope, PlainCall):
            await writing.flush(self._scope.run.loop_driver, self._scope)

    def emitted(self) -> list[C]:
        """The values that this writer has in the stream. See ``emitted_async``, its awaitable twin."""
        refuse_on_loop("await writer.emitted_async()")
        if isinstance(self._scope, PlainCall):
            return []
        return self._loaded(drive(writing.emitted(self._scope.run.thread_driver, self._scope, self._key)))

    async def emitted_async(self) -> list[C]:
        """The values that this writer has in the stream; with ``on_retry="resume"`` also those of earlier attempts.

        Flushes first. A generator that was interrupted can continue from where it stopped. In a workflow's body, also
        in a replay, these are the values that the body has written up to the call.
        """
        if isinstance(self._scope, PlainCall):
            return []
        return self._loaded(await writing.emitted(self._scope.run.loop_driver, self._scope, self._key))

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self, final: F | None = None) -> None:
        """Closes the stream as complete. See ``close_async``, its awaitable twin."""
        refuse_on_loop("await writer.close_async(...)")
        self._close(FrameKind.COMPLETE, None if final is None else self._final.dump(final))

    async def close_async(self, final: F | None = None) -> None:
        """Closes the stream as complete, like ``close_stream_async``.

        Args:
            final: the final payload, which readers find in their ``outcome``.

        Raises:
            SerializationError: ``final`` is not of the stream's type for it, or JSON cannot carry it.
        """
        self._close(FrameKind.COMPLETE, None if final is None else self._final.dump(final))

    def fail(self, error: BaseException) -> None:
        """Ends the stream with an error. See ``fail_async``, its awaitable twin."""
        refuse_on_loop("await writer.fail_async(...)")
        self._close(FrameKind.ERROR, dump_error(error))

    async def fail_async(self, error: BaseException) -> None:
        """Ends the stream with an error: readers get a ``StreamFailedError`` with ``error`` as its cause."""
        self._close(FrameKind.ERROR, dump_error(error))

    # -- how it stands -----------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The number of values that this writer has written; with ``on_retry="resume"`` also by earlier attempts."""
        return self._dropped if isinstance(self._scope, PlainCall) else writing.written(self._scope, self._key)

    @property
    def writable(self) -> bool:
        """Whether a write would return at once: the stream is open, and there is room in the buffer."""
        return isinstance(self._scope, PlainCall) or self._scope.run.streams.takes(self._key)

    @property
    def cancelled(self) -> bool:
        """Whether the workflow's cancellation was requested."""
        return not isinstance(self._scope, PlainCall) and self._scope.run.cancelled

    def on_cancel(self, tell: Callable[[], object]) -> None:
        """Calls ``tell`` on the event loop's thread when the workflow is cancelled; at once if it is already."""
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
        writing.close(self._scope, self._key, _WRITER, kind, payload)

    def _loaded(self, texts: list[str]) -> list[C]:
        if isinstance(self._scope, PlainCall):
            return []
        return [load(self._scope.run, self._chunks, text, f"stream {self._key!r}") for text in texts]
