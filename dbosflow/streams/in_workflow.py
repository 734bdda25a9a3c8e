"""Reads of another workflow's stream inside a workflow. They are recorded, so a replay reads the same."""

from __future__ import annotations

from typing import Any, TypeVar, Unpack, overload

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import branch_around
from dbosflow._runtime.operations.recorded_reads import next_page
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.streams.options import OnRollback, ReadOptions, read_request
from dbosflow.streams.readers import StreamChannel, StreamReader

T = TypeVar("T")


@overload
def read_stream(
    workflow_id: str, key: str, *, on_rollback: OnRollback = "raise", **options: Unpack[ReadOptions]
) -> StreamReader[Any]: ...
@overload
def read_stream(
    workflow_id: str, key: str, *, type: type[T], on_rollback: OnRollback = "raise", **options: Unpack[ReadOptions]
) -> StreamReader[T]: ...
def read_stream(
    workflow_id: str,
    key: str,
    *,
    type: Any = None,  # noqa: A002 (the word of the public interface)
    on_rollback: OnRollback = "raise",
    **options: Unpack[ReadOptions],
) -> StreamReader[Any]:
    """Inside a sync workflow: an iterator over the values of another workflow's stream.

    The pages that were read are recorded, so a replay reads the same. See ``Engine.read_stream`` for the arguments and
    errors.

    Raises:
        NotInWorkflowError: the caller is not in a workflow's body. Use ``engine.read_stream`` there.
    """
    refuse_on_loop("read_stream_async(...)")
    scope = branch_around("read_stream", "read_stream")
    cursor = scope.run.engine.cursor(read_request(workflow_id, key, type, options))
    return StreamReader(cursor, lambda: drive(next_page(scope, cursor)), on_rollback)


@overload
def read_stream_async(workflow_id: str, key: str, **options: Unpack[ReadOptions]) -> StreamChannel[Any]: ...
@overload
def read_stream_async(
    workflow_id: str, key: str, *, type: type[T], **options: Unpack[ReadOptions]
) -> StreamChannel[T]: ...
def read_stream_async(
    workflow_id: str,
    key: str,
    *,
    type: Any = None,  # noqa: A002 (the word of the public interface)
    **options: Unpack[ReadOptions],
) -> StreamChannel[Any]:
    """Inside an async workflow: a channel of the items of another workflow's stream.

    The pages that were read are recorded, so a replay reads the same. See ``Engine.read_stream`` for the arguments and
    errors.

    Raises:
        NotInWorkflowError: the caller is not in a workflow's body. Use ``engine.read_stream_async`` there.
    """
    scope = branch_around("read_stream_async", "read_stream_async")
    cursor = scope.run.engine.cursor(read_request(workflow_id, key, type, options))
    return StreamChannel(cursor, lambda: next_page(scope, cursor))
