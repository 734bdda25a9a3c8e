"""Receives messages inside a workflow."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dbosflow._records.spaces import check_topic
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import branch_around
from dbosflow._runtime.operations.receiving import receive
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.config import check_seconds
from dbosflow.serde import Codec

if TYPE_CHECKING:
    from dbosflow._runtime.operations.receiving import Received

T = TypeVar("T")


@overload
def recv(topic: str = "", *, timeout: float | timedelta | None = None) -> Any: ...
@overload
def recv(topic: str = "", *, type: type[T], timeout: float | timedelta | None = None) -> T: ...
def recv(
    topic: str = "",
    *,
    type: Any = None,  # noqa: A002 (the word of the public interface)
    timeout: float | timedelta | None = None,
) -> Any:
    """Inside a sync workflow: waits for the next message on a topic.

    See ``recv_async``, its awaitable twin, for the arguments and errors.
    """
    refuse_on_loop("await recv_async(...)")
    branch = branch_around("recv", "send")
    return _value(drive(receive(branch, check_topic(topic), message_codec(type, topic), seconds_of(timeout))))


@overload
async def recv_async(topic: str = "", *, timeout: float | timedelta | None = None) -> Any: ...  # noqa: ASYNC109
@overload
async def recv_async(  # its result is typed
    topic: str = "",
    *,
    type: type[T],
    timeout: float | timedelta | None = None,  # noqa: ASYNC109
) -> T: ...
async def recv_async(
    topic: str = "",
    *,
    type: Any = None,  # noqa: A002 (the word of the public interface)
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 (durable)
) -> Any:
    """Inside a workflow: waits for the next message on a topic, and returns its value.

    Messages come in the order of their offsets, and each is received once, however often the workflow is taken over:
    the message is on record. Of several calls at a time each gets another message. A call that is cancelled, by
    ``timeout()`` or a sibling, leaves the message to the next one. Messages that came before the call are there.

    Args:
        topic: the topic that was given to ``send``.
        type: the type of the value; plain JSON by default.
        timeout: how long to wait at most, in seconds or as a ``timedelta``. The limit is durable: a recovered workflow
            waits for the rest of the time. 0: only looks. ``None``: without limit.

    Raises:
        MessageTimeoutError: no message came within ``timeout``.
        SerializationError: the message is not of ``type``. It is received, and does not come again.
        NotInWorkflowError: the caller is not in a workflow's body.
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: the topic or ``timeout`` is not valid.
    """
    branch = branch_around("recv_async", "send_async")
    return _value(await receive(branch, check_topic(topic), message_codec(type, topic), seconds_of(timeout)))


def message_codec(annotation: Any, topic: str) -> Codec[Any]:
    """The codec of the messages on a topic."""
    return Codec(Any if annotation is None else annotation, f"a message on topic {topic!r}")


def seconds_of(timeout: float | timedelta | None) -> float | None:
    """A limit in seconds; ``ConfigurationError`` if it is no duration."""
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    return check_seconds("timeout", seconds, or_none=True)


def _value(found: Received) -> Any:
    if found.error is not None:
        raise found.error
    return found.value
