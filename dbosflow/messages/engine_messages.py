"""The engine's methods for messages: sending them to workflows."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dbosflow._records.producers import of_idempotency_key, unique_outsider
from dbosflow._records.spaces import check_topic
from dbosflow._runtime.operations.tokens import parse_token_id
from dbosflow.config import LARGEST_OFFSET, check_identifier, check_timeout, check_whole
from dbosflow.errors import RejectedError, WaitTimeoutError
from dbosflow.failures import dump_error, load_error
from dbosflow.messages.engine_events import EngineEvents
from dbosflow.messages.rejection import rejection
from dbosflow.messages.sending import MESSAGE
from dbosflow.serde import Codec, dump_undeclared
from dbosflow.streams.inputs import check_idempotency_key
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow._store.stream import Block

T = TypeVar("T")


class EngineMessages(EngineEvents):
    """The messages to workflows."""

    def send(self, workflow_id: str, value: Any, topic: str = "", *, idempotency_key: str | None = None) -> int:
        """Sends a message to a workflow, and returns its offset once it is durable.

        See ``send_async``, its awaitable twin, for the arguments and errors.
        """
        return self._host.call("send_async", self._send, workflow_id, value, topic, idempotency_key)

    async def send_async(
        self, workflow_id: str, value: Any, topic: str = "", *, idempotency_key: str | None = None
    ) -> int:
        """Sends a message to a workflow, and returns its offset in its topic once it is durable.

        The workflow may run anywhere, wait in its queue, or sleep: it gets the message when it calls ``recv`` for the
        topic. Messages of one sender on one topic are received in the order in which they were sent, and each once,
        also when a connection breaks. Nothing is declared. A message that is sent in the moment in which the workflow
        ends may be accepted and never be received.

        Args:
            workflow_id: the workflow that receives the message.
            value: a value that JSON can carry as one of its class.
            topic: a name by which the workflow tells messages apart: a text of up to 472 bytes in UTF-8, or empty.
            idempotency_key: if a message was sent to the topic with the same key before, nothing is sent and the offset
                of that message is returned. For a sender that may crash and retry.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
            WorkflowEndedError: the workflow has ended.
            InboxFullError: too many messages wait on the topic, or the workflow has too many topics.
            MessageTooLargeError: the message is above this engine's ``message_bytes``.
            DatabaseUnavailableError: the database has not answered for 12 hours, and there is no ``idempotency_key``:
                whether the message was sent is not known.
            SerializationError: JSON cannot carry the value.
            ConfigurationError: the workflow id, topic or idempotency key is not valid.
        """
        return await self._host.bridge(self._send(workflow_id, value, topic, idempotency_key))

    @overload
    def ask(
        self,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> Any: ...
    @overload
    def ask(
        self,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        type: type[T],
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> T: ...
    def ask(
        self,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Sends a request to a workflow, and waits for its reply.

        See ``ask_async``, its awaitable twin, for the arguments and errors.
        """
        codec = _reply_codec(type, topic)
        sent = (workflow_id, value, topic, idempotency_key)
        return _reply(codec, self._host.call("ask_async", self._ask, sent, timeout))

    @overload
    async def ask_async(
        self,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        idempotency_key: str | None = None,
    ) -> Any: ...
    @overload
    async def ask_async(
        self,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
        idempotency_key: str | None = None,
    ) -> T: ...
    async def ask_async(
        self,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | None = None,  # noqa: ASYNC109 (a limit of the wait, in seconds)
        idempotency_key: str | None = None,
    ) -> Any:
        """Sends a request to a workflow, and waits for its reply.

        The request is a message, and the workflow takes it with ``requests``. Request and reply are durable: with an
        ``idempotency_key`` a caller that was cut off, or whose ``timeout`` was over, asks again and gets the reply to
        its first request, also when the workflow has ended meanwhile.

        Args:
            workflow_id: the workflow that is asked.
            value: a value that JSON can carry as one of its class.
            topic: the topic that was given to ``requests``.
            type: the type of the reply; plain JSON by default.
            timeout: how long to wait for the reply, in seconds; ``None``: without limit.
            idempotency_key: as for ``send``.

        Raises:
            Exception: the exception that the request was rejected with, rebuilt.
            RejectedError: it was rejected with a text, or its exception cannot be rebuilt here.
            WaitTimeoutError: no reply within ``timeout``. The request stays.
            WorkflowEndedError: the workflow has ended, before the request or without a reply.
            DbosflowError: the other errors of ``send_async``.
        """
        codec = _reply_codec(type, topic)
        sent = (workflow_id, value, topic, idempotency_key)
        return _reply(codec, await self._host.bridge(self._ask(sent, timeout)))

    @overload
    def get_reply(self, workflow_id: str, offset: int, topic: str = "", *, timeout: float | None = None) -> Any: ...
    @overload
    def get_reply(
        self, workflow_id: str, offset: int, topic: str = "", *, type: type[T], timeout: float | None = None
    ) -> T: ...
    def get_reply(
        self,
        workflow_id: str,
        offset: int,
        topic: str = "",
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | None = None,
    ) -> Any:
        """Waits for the reply to a request that was sent before.

        See ``get_reply_async``, its awaitable twin, for the arguments and errors.
        """
        codec = _reply_codec(type, topic)
        return _reply(codec, self._host.call("get_reply_async", self._get_reply, workflow_id, topic, offset, timeout))

    @overload
    async def get_reply_async(
        self,
        workflow_id: str,
        offset: int,
        topic: str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any: ...
    @overload
    async def get_reply_async(
        self,
        workflow_id: str,
        offset: int,
        topic: str = "",
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T: ...
    async def get_reply_async(
        self,
        workflow_id: str,
        offset: int,
        topic: str = "",
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | None = None,  # noqa: ASYNC109 (a limit of the wait, in seconds)
    ) -> Any:
        """Waits for the reply to a request that was sent before, by anybody, with ``send`` or ``ask``.

        Args:
            workflow_id: the workflow that was asked.
            offset: the request's offset in its topic, as ``send`` has returned it.
            topic: the topic.
            type: the type of the reply; plain JSON by default.
            timeout: how long to wait, in seconds; 0: only looks; ``None``: without limit.

        Raises:
            Exception: the exception that the request was rejected with, rebuilt.
            RejectedError: it was rejected with a text, or its exception cannot be rebuilt here.
            WaitTimeoutError: no reply within ``timeout``. The request stays.
            WorkflowEndedError: the workflow has ended without a reply.
            WorkflowNotFoundError: no workflow has this id.
            ConfigurationError: an argument is not valid.
        """
        codec = _reply_codec(type, topic)
        return _reply(codec, await self._host.bridge(self._get_reply(workflow_id, topic, offset, timeout)))

    # -- tokens ------------------------------------------------------------------------------------------------------

    def resolve(self, token_id: str, value: Any = None, *, idempotency_key: str | None = None) -> None:
        """Answers a token with a value. See ``resolve_async``, its awaitable twin, for the arguments and errors."""
        self._host.call("resolve_async", self._answer, token_id, value, idempotency_key)

    async def resolve_async(self, token_id: str, value: Any = None, *, idempotency_key: str | None = None) -> None:
        """Answers a token with a value, durable on return: ``token.wait`` returns it.

        The first answer counts. The token's id holds a secret, which is checked in the statement that answers.

        Args:
            token_id: the token's ``id``.
            value: a value that JSON can carry as one of its class.
            idempotency_key: an answer with the key of the answer that counts does nothing. For a caller that may crash
                and answer again; in a step ``current().idempotency_key``.

        Raises:
            AlreadyAnsweredError: the token has another answer, which counts.
            TokenNotFoundError: the workflow has no such token, or the secret is not that of the token.
            WorkflowEndedError: the workflow has ended.
            WorkflowNotFoundError: there is no such workflow any more.
            MessageTooLargeError: the value is above this engine's ``message_bytes``.
            SerializationError: JSON cannot carry the value.
            ConfigurationError: the text is no id of a token, or the idempotency key is not valid.
        """
        await self._host.bridge(self._answer(token_id, value, idempotency_key))

    def reject(self, token_id: str, error: BaseException | str, *, idempotency_key: str | None = None) -> None:
        """Answers a token with an error. See ``reject_async``, its awaitable twin, for the arguments and errors."""
        self._host.call("reject_async", self._reject, token_id, error, idempotency_key)

    async def reject_async(
        self, token_id: str, error: BaseException | str, *, idempotency_key: str | None = None
    ) -> None:
        """Answers a token with an error, durable on return: ``token.wait`` raises it.

        Args:
            token_id: the token's ``id``.
            error: an exception, or a text, which becomes a ``RejectedError``.
            idempotency_key: as for ``resolve``.

        Raises:
            ConfigurationError: ``error`` is neither an exception nor a text.
            DbosflowError: what ``resolve_async`` raises.
        """
        await self._host.bridge(self._reject(token_id, error, idempotency_key))

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _send(self, workflow_id: str, value: object, topic: str, idempotency_key: str | None) -> int:
        check_identifier("workflow id", workflow_id)
        once = check_idempotency_key(idempotency_key)
        text = dump_undeclared(value, MESSAGE)
        return await self._core.send(
            workflow_id, check_topic(topic), text, None if once is None else of_idempotency_key(once)
        )

    async def _ask(self, sent: tuple[str, object, str, str | None], seconds: float | None) -> Block:
        check_timeout("timeout", seconds)
        workflow_id, _, topic, _ = sent
        with _no_reply_in_time(workflow_id, topic, seconds):
            async with asyncio.timeout(seconds):
                offset = await self._send(*sent)
                return await self._core.answers.reply(workflow_id, topic, offset)

    async def _get_reply(self, workflow_id: str, topic: str, offset: int, seconds: float | None) -> Block:
        check_timeout("timeout", seconds)
        check_identifier("workflow id", workflow_id)
        check_whole("offset", offset, 0, LARGEST_OFFSET)
        with _no_reply_in_time(workflow_id, topic, seconds):
            async with asyncio.timeout(seconds or None):
                return await self._core.answers.reply(workflow_id, check_topic(topic), offset, once=seconds == 0)

    async def _answer(self, token_id: str, value: object, idempotency_key: str | None) -> None:
        token, text = parse_token_id(token_id), dump_undeclared(value, "the answer to a token")
        await self._core.answers.answer_token(token, FrameKind.COMPLETE, text, _producer(idempotency_key))

    async def _reject(self, token_id: str, error: BaseException | str, idempotency_key: str | None) -> None:
        token = parse_token_id(token_id)
        text = dump_error(rejection(error))
        await self._core.answers.answer_token(token, FrameKind.ERROR, text, _producer(idempotency_key))


@contextmanager
def _no_reply_in_time(workflow_id: str, topic: str, seconds: float | None) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        msg = f"no reply of workflow {workflow_id!r} on topic {topic!r} within {seconds} s"
        raise WaitTimeoutError(msg) from None


def _reply_codec(annotation: Any, topic: str) -> Codec[Any]:
    return Codec(Any if annotation is None else annotation, f"the reply to a request on topic {topic!r}")


def _reply(codec: Codec[Any], found: Block) -> Any:
    if found.kind is FrameKind.ERROR:
        failed = load_error(found.values or "{}")
        raise failed.exception or failed.noted(RejectedError(f"{failed.type}: {failed.message}"))
    return codec.load(found.values or "null")


def _producer(idempotency_key: str | None) -> str:
    once = check_idempotency_key(idempotency_key)
    return unique_outsider() if once is None else of_idempotency_key(once)
