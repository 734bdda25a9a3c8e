"""Writing to the streams of the running workflow."""

from __future__ import annotations

from typing import Any

from dbosflow import serde
from dbosflow._runtime import writing
from dbosflow._runtime.hands import drive
from dbosflow._runtime.host import refuse_on_loop
from dbosflow.config import check_identifier


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
