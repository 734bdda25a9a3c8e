"""Sends messages to workflows: writes to their inboxes, from outside. See ``outside_writer``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dbosflow._records.producers import outsider_of
from dbosflow._records.spaces import inbox_key, topic_of
from dbosflow._runtime.streams.outside_writer import OutsideWriter
from dbosflow._store import message
from dbosflow._store.message import Sent
from dbosflow.errors import InboxFullError, MessageTooLargeError, WorkflowEndedError, WorkflowNotFoundError
from dbosflow.serde import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.streams.outside_writer import PendingBlock, StreamKey
    from dbosflow._store.message import Answered
    from dbosflow.config import Settings

BLOCK_VALUES = 64
"""Messages in a block at most: the newest block of an inbox stays, however much of it was received."""

logger = logging.getLogger("dbosflow.messages")


class MessageWriter(OutsideWriter[Sent]):
    """The group commit of messages to workflows."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], settings: Settings, announce: Callable[[Iterable[str]], None]
    ) -> None:
        super().__init__("messages", pool, settings, announce)

    async def send(self, workflow_id: str, topic: str, text: str, producer: str | None) -> int:
        """Sends a message; returns its offset in its topic once it is durable. A producer sends one there at most."""
        check_size(self._settings, workflow_id, text)
        return await self._add((workflow_id, inbox_key(topic)), text, producer)

    def _is_full(self, block: PendingBlock) -> bool:
        return len(block.texts) >= BLOCK_VALUES or super()._is_full(block)

    async def _store(self, connection: AsyncConnection[Any], taken: list[tuple[StreamKey, PendingBlock]]) -> list[Sent]:
        rows = [
            (*stream_of, block.count, block.values, size_of(block.values or ""), block.producer)
            for stream_of, block in taken
        ]
        settings = self._settings
        return await message.send(
            connection, settings.schema, rows, max_values=settings.inbox_values, max_topics=settings.inbox_topics
        )

    def _admit(self, stream_of: StreamKey, block: PendingBlock, result: Sent, before: int | None) -> int:
        stored = result.stored if before is None else before

        def refused(_text: str) -> Exception | None:
            nonlocal stored
            error = self._full(stream_of, result, stored)
            stored += error is None
            return error

        block.refuse(refused)
        return stored

    def _full(self, stream_of: StreamKey, result: Sent, stored: int) -> Exception | None:
        workflow_id, topic, settings = stream_of[0], topic_of(stream_of[1]), self._settings
        if result.crowded:
            msg = (
                f"workflow {workflow_id!r} takes no message on the new topic {topic!r}: it has had messages on "
                f"inbox_topics={settings.inbox_topics} topics. Use fewer, with what varies in the message"
            )
            return InboxFullError(workflow_id, msg)
        if stored < settings.inbox_values:
            return None
        msg = (
            f"the inbox of workflow {workflow_id!r} is full: inbox_values={settings.inbox_values} messages on topic "
            f"{topic!r} are stored, which it has not received yet or not removed yet. Send later"
        )
        return InboxFullError(workflow_id, msg)

    def _error(self, stream_of: StreamKey, block: PendingBlock, result: Sent) -> Exception | None:  # noqa: ARG002 (of the base)
        return refusal(stream_of[0], result)

    def _warn_of_other_value(self, stream_of: StreamKey, producer: str) -> None:
        logger.warning(
            "topic %r of workflow %s: %s was used before, for another message, which stays",
            *(topic_of(stream_of[1]), stream_of[0], outsider_of(producer)),
        )


def check_size(settings: Settings, workflow_id: str, text: str) -> None:
    """Raises unless a message is small enough."""
    size = size_of(text)
    if size > settings.message_bytes:
        msg = (
            f"a message of {size} bytes is too large for workflow {workflow_id!r}: message_bytes is "
            f"{settings.message_bytes}. Store it elsewhere and send where, or write it to an input stream"
        )
        raise MessageTooLargeError(workflow_id, msg)


def refusal(workflow_id: str, result: Sent | Answered) -> Exception | None:
    """Why a workflow can never get a message, or an answer; ``None`` if it can."""
    if result.status is None:
        return WorkflowNotFoundError(workflow_id, f"there is no workflow {workflow_id!r}: start it, then send to it")
    if result.status.ended:
        msg = f"workflow {workflow_id!r} has ended ({result.status}): it receives no messages any more"
        return WorkflowEndedError(workflow_id, msg)
    return None
