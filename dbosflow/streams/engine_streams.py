"""The engine's methods for streams: reading them, and writing inputs from outside."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from dbosflow._runtime.engine.lifecycle import Lifecycle
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.config import check_identifier
from dbosflow.streams.declared import key_of
from dbosflow.streams.inputs import check_idempotency_key, input_value_text
from dbosflow.streams.options import read_request
from dbosflow.streams.pages import FinalTextCodec, StreamPages, TextCodec
from dbosflow.streams.readers import StreamChannel, StreamReader
from dbosflow.streams.resource import Streams

if TYPE_CHECKING:
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow.streams.declared import Stream
    from dbosflow.streams.options import OnRollback, ReadOptions

V = TypeVar("V")
F = TypeVar("F")


class EngineStreams(Lifecycle):
    """The streams of an engine's database."""

    # -- read -----------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> Streams:
        """The streams of this database: their state, trimming, events and statistics."""
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
        """A blocking iterator over the stream's values: first those that exist, then each new one once it is committed.

        Args:
            workflow_id: the workflow that writes the stream. It may run in any process, have ended long ago, or not
                have started yet (see ``wait_for``).
            key: the stream's key within the workflow.
            type: the type of the values; plain JSON by default.
            on_rollback: what to do when values that were returned are rolled back, because the step's attempt that
                wrote them failed: ``"raise"`` a ``StreamRolledBackError``, ``"ignore"`` the rollback, or call the
                given function with the ``Rollback``.
            options: ``start``, ``until``, ``view``, ``timeout`` and ``wait_for``; see
                ``dbosflow.streams.options.ReadOptions``.

        Raises:
            ConfigurationError: an option is not valid.
            StreamFailedError: from the iterator, after the last value: the stream ended with an error.
            StreamCancelledError: from the iterator, after the last value: the workflow was cancelled.
            StreamRolledBackError: from the iterator: values that were returned no longer count.
            StreamTimeoutError: from the iterator: no news within ``timeout`` seconds. Reading can go on.
            StreamTruncatedError: from the iterator: the next values have been trimmed.
            WorkflowNotFoundError: from the iterator: no workflow had the id within ``wait_for`` seconds.
            WorkflowBlockedError: from the iterator: the workflow is blocked. Reading can go on once it is resumed.
            SerializationError: from the iterator: the next value is not of ``type``.
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
        """An async channel of the stream's items, the last of which is ``closed``. See ``read_stream``."""
        return self._channel(read_request(workflow_id, key, type, options))

    def read(
        self,
        stream: Stream[V, F],
        workflow_id: str,
        *,
        on_rollback: OnRollback = "raise",
        **options: Unpack[ReadOptions],
    ) -> StreamReader[V]:
        """``read_stream`` for a declared stream: its values and its final payload are typed."""
        refuse_on_loop("read_async")
        return self._reader(stream.read_request(workflow_id, options), on_rollback, "read_async")

    def read_async(self, stream: Stream[V, F], workflow_id: str, **options: Unpack[ReadOptions]) -> StreamChannel[V]:
        """``read_stream_async`` for a declared stream: its values and its final payload are typed."""
        return self._channel(stream.read_request(workflow_id, options))

    def _reader(self, request: ReadRequest, on_rollback: OnRollback, twin: str) -> StreamReader[Any]:
        cursor = self._core.cursor(request)
        return StreamReader(cursor, lambda: self._host.call(twin, self._core.next_page, cursor), on_rollback)

    def _channel(self, request: ReadRequest) -> StreamChannel[Any]:
        cursor = self._core.cursor(request)
        return StreamChannel(cursor, lambda: self._host.bridge(self._core.next_page(cursor)))

    def read_stream_pages(self, workflow_id: str, key: str, **options: Unpack[ReadOptions]) -> StreamPages:
        """An async iterator over the pages of a stream, for programs that pass its frames on, as an HTTP server does.

        Values come as the JSON text that they are stored as. The options and errors are those of ``read_stream_async``,
        but that the end of a stream is in the last page's ``outcome``, and is no error.
        """
        request = replace(read_request(workflow_id, key, None, options), codec=TextCodec(), final=FinalTextCodec())
        bridge, core = self._host.bridge, self._core
        cursor = core.cursor(request)
        return StreamPages(cursor, lambda: bridge(core.look(cursor)), lambda: bridge(core.next_page(cursor)))

    # -- written from outside ------------------------------------------------------------------------------------------

    def write_stream(
        self, workflow_id: str, stream: str | Stream[V, Any], value: V, *, idempotency_key: str | None = None
    ) -> int:
        """Appends ``value`` to an input of a workflow, from outside, and returns its offset once it is durable.

        See ``write_stream_async``, its awaitable twin, for the arguments and errors.
        """
        return self._host.call("write_stream_async", self._write, workflow_id, stream, value, idempotency_key)

    async def write_stream_async(
        self, workflow_id: str, stream: str | Stream[V, Any], value: V, *, idempotency_key: str | None = None
    ) -> int:
        """Appends ``value`` to an input of a workflow, from outside, and returns its offset once it is durable.

        Any number of writers may write at a time, from any process. Offsets are dense, each writer's values keep their
        order, and no value is lost or duplicated, even when a connection breaks. The workflow may run anywhere, or
        still wait in its queue.

        Args:
            workflow_id: the workflow that reads the input.
            stream: a key that the workflow declares with ``@workflow(inputs=["chat"])``, or the declared ``Stream``,
                which gives the value its type.
            value: a value that JSON can carry under its type.
            idempotency_key: if a value was written to the input with the same key before, nothing is written and the
                offset of that value is returned. For a writer that may crash and retry between the write and the
                answer.

        Raises:
            StreamInputError: the workflow was not started with such an input.
            StreamClosedError: the workflow has ended, or the input is closed.
            StreamValueTooLargeError: the value is above this engine's ``value_bytes``.
            StreamFullError: the input would exceed this engine's ``stream_values`` or ``stream_bytes``.
            WorkflowNotFoundError: no workflow has this id.
            SerializationError: the value is not of the stream's type, or JSON cannot carry it.
            ConfigurationError: the workflow id, stream key or idempotency key is not valid.
        """
        return await self._host.bridge(self._write(workflow_id, stream, value, idempotency_key))

    def close_stream(self, workflow_id: str, stream: str | Stream[Any, Any]) -> None:
        """Closes an input of a workflow, from outside. See ``close_stream_async``, its awaitable twin."""
        self._host.call("close_stream_async", self._close_input, workflow_id, stream)

    async def close_stream_async(self, workflow_id: str, stream: str | Stream[Any, Any]) -> None:
        """Closes an input of a workflow, from outside, as complete: the workflow's reader comes to an end.

        Nothing can be written to the input any more. Closing a closed input does nothing. An input that is never closed
        ends with its workflow.

        Raises:
            StreamInputError: the workflow was not started with such an input.
            WorkflowNotFoundError: no workflow has this id.
        """
        await self._host.bridge(self._close_input(workflow_id, stream))

    async def _write(
        self, workflow_id: str, stream: str | Stream[Any, Any], value: object, idempotency_key: str | None
    ) -> int:
        check_identifier("workflow id", workflow_id)
        text, once = input_value_text(stream, value), check_idempotency_key(idempotency_key)
        return await self._core.append(workflow_id, key_of(stream), text, once)

    async def _close_input(self, workflow_id: str, stream: str | Stream[Any, Any]) -> None:
        await self._core.end_input(check_identifier("workflow id", workflow_id), key_of(stream))
