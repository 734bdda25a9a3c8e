"""Reading another workflow's stream inside a workflow: what was read is on record, so a replay reads the same."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from dbosflow._runtime.branch import Branch
from dbosflow._runtime.hands import drive
from dbosflow._runtime.host import refuse_on_loop
from dbosflow._runtime.reading import next_page
from dbosflow._runtime.scope import current_scope
from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError, NotInWorkflowError
from dbosflow.serde import Codec
from dbosflow.streams.readers import StreamChannel, StreamReader

T = TypeVar("T")


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
