"""Requests: messages that a workflow replies to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dbosflow._records.spaces import check_topic, reply_key
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import branch_around
from dbosflow._runtime.operations import writing
from dbosflow._runtime.operations.receiving import receive
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.errors import AlreadyAnsweredError, NotInWorkflowError
from dbosflow.failures import dump_error
from dbosflow.messages.receiving import message_codec
from dbosflow.messages.rejection import rejection
from dbosflow.serde import Codec
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from typing import Self

    from dbosflow._runtime.operations.receiving import Received

Q = TypeVar("Q")
A = TypeVar("A")


class _Reply:
    """The reply to one request."""

    def __init__(self, workflow_id: str, topic: str, offset: int, codec: Codec[Any]) -> None:
        self._workflow_id, self._topic, self._offset = workflow_id, topic, offset
        self._codec = codec
        self._is_there = False

    def write(self, value: Any, what: str) -> None:
        self._close(FrameKind.COMPLETE, self._codec.dump(value), what)

    def fail(self, error: BaseException | str, what: str) -> None:
        self._close(FrameKind.ERROR, dump_error(rejection(error)), what)

    def _close(self, kind: FrameKind, payload: str, what: str) -> None:
        branch = branch_around(what, None)
        if branch.run.workflow_id != self._workflow_id:
            msg = f"{what} was called in another workflow than {self._workflow_id!r}, which got the request"
            raise NotInWorkflowError(msg)
        if self._is_there:
            msg = f"the request at offset {self._offset} of topic {self._topic!r} has been answered before"
            raise AlreadyAnsweredError(self._workflow_id, msg)
        writing.close(branch, reply_key(self._topic, self._offset), what, kind, payload)
        self._is_there = True


class Request(Generic[Q, A]):
    """A request to a sync workflow. Whoever asks gets the first reply."""

    def __init__(self, value: Q, reply: _Reply) -> None:
        self.value = value
        self._reply = reply

    def reply(self, value: A) -> None:
        """Replies to the request. Returns at once; the reply is durable with or before the workflow's next record.

        Raises:
            AlreadyAnsweredError: the request has been answered before.
            SerializationError: the value is not of the type of replies, or JSON cannot carry it.
            NotInWorkflowError: the caller is not in the body of the workflow.
        """
        self._reply.write(value, "request.reply")

    def reject(self, error: BaseException | str) -> None:
        """Replies with an error, which whoever asked gets raised.

        Raises what ``reply`` raises; ``ConfigurationError`` if ``error`` is neither an exception nor a text.
        """
        self._reply.fail(error, "request.reject")


class AsyncRequest(Generic[Q, A]):
    """A request to an async workflow. Whoever asks gets the first reply."""

    def __init__(self, value: Q, reply: _Reply) -> None:
        self.value = value
        self._reply = reply

    async def reply(self, value: A) -> None:
        """Replies to the request. Returns at once; the reply is durable with or before the workflow's next record.

        Raises:
            AlreadyAnsweredError: the request has been answered before.
            SerializationError: the value is not of the type of replies, or JSON cannot carry it.
            NotInWorkflowError: the caller is not in the body of the workflow.
        """
        self._reply.write(value, "request.reply")

    async def reject(self, error: BaseException | str) -> None:
        """Replies with an error, which whoever asked gets raised.

        Raises what ``reply`` raises; ``ConfigurationError`` if ``error`` is neither an exception nor a text.
        """
        self._reply.fail(error, "request.reject")


class Requests(Generic[Q, A]):
    """The requests on a topic, one after the other: for ``async for``, and in a sync workflow for ``for``."""

    def __init__(self, topic: str, annotation: Any, reply: Any) -> None:
        self._topic = check_topic(topic)
        self._codec = message_codec(annotation, topic)
        self._reply: Codec[Any] = Codec(Any if reply is None else reply, f"the reply to a request on topic {topic!r}")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Request[Q, A]:
        refuse_on_loop("async for request in requests(...)")
        while True:
            branch = branch_around("requests", None)
            found = drive(receive(branch, self._topic, self._codec, None))
            reply = self._of(branch.run.workflow_id, found)
            if reply is not None:
                return Request(found.value, reply)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncRequest[Q, A]:
        while True:
            branch = branch_around("requests", None)
            found = await receive(branch, self._topic, self._codec, None)
            reply = self._of(branch.run.workflow_id, found)
            if reply is not None:
                return AsyncRequest(found.value, reply)

    def _of(self, workflow_id: str, found: Received) -> _Reply | None:
        """The reply to come; ``None`` for a request that is not of the type, which gets that as its reply."""
        reply = _Reply(workflow_id, self._topic, found.offset, self._reply)
        if found.error is None:
            return reply
        reply.fail(found.error, "requests")
        return None


@overload
def requests(topic: str = "") -> Requests[Any, Any]: ...
@overload
def requests(topic: str = "", *, type: type[Q]) -> Requests[Q, Any]: ...
@overload
def requests(topic: str = "", *, type: type[Q], reply: type[A]) -> Requests[Q, A]: ...
def requests(
    topic: str = "",
    *,
    type: Any = None,  # noqa: A002 (the word of the public interface)
    reply: Any = None,
) -> Requests[Any, Any]:
    """Inside a workflow: the requests on a topic, as ``engine.ask`` sends them; without an end.

    ``async for request in requests("question"): await request.reply(...)``; in a sync workflow without ``async`` and
    ``await``. Each request is received once, as ``recv`` receives a message, and each reply is written once, whatever
    crashes. A request that is not of ``type`` is rejected with a ``SerializationError``, and the loop goes on. Leave
    the loop with ``break``; requests that are not taken stay without a reply, and whoever asked gets
    ``WorkflowEndedError`` when the workflow ends.

    Args:
        topic: the topic that was given to ``engine.ask``.
        type: the type of the requests' values; plain JSON by default.
        reply: the type of the replies; plain JSON by default.

    Raises:
        NotInWorkflowError: from the iterator: the caller is not in a workflow's body.
        ConfigurationError: the topic is not valid.
    """
    return Requests(topic, type, reply)
