"""What an engine can be asked about streams: to read them, and to write inputs from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from dbosflow._runtime.engine.lifecycle import Lifecycle
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.config import check_identifier
from dbosflow.streams.declared import key_of
from dbosflow.streams.inputs import check_idempotency_key, input_value_text
from dbosflow.streams.options import read_request
from dbosflow.streams.readers import StreamChannel, StreamReader
from dbosflow.streams.resource import Streams

if TYPE_CHECKING:
    from dbosflow._runtime.streams.cursor import ReadRequest
    from dbosflow.streams.declared import Stream
    from dbosflow.streams.options import OnRollback, ReadOptions

V = TypeVar("V")
F = TypeVar("F")


class EngineStreams(Lifecycle):
    """The streams of an engine's database."""

    # -- read -----------------------------------------------------------------------------------------------------

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

    # -- written from outside ------------------------------------------------------------------------------------------

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

    async def _write(
        self, workflow_id: str, stream: str | Stream[Any, Any], value: object, idempotency_key: str | None
    ) -> int:
        check_identifier("workflow id", workflow_id)
        text, once = input_value_text(stream, value), check_idempotency_key(idempotency_key)
        return await self._core.append(workflow_id, key_of(stream), text, once)

    async def _close_input(self, workflow_id: str, stream: str | Stream[Any, Any]) -> None:
        await self._core.end_input(check_identifier("workflow id", workflow_id), key_of(stream))
