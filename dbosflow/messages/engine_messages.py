"""The engine's methods for messages: sending them to workflows."""

from __future__ import annotations

from typing import Any

from dbosflow._records.producers import of_idempotency_key
from dbosflow._records.spaces import check_topic
from dbosflow.config import check_identifier
from dbosflow.messages.engine_events import EngineEvents
from dbosflow.messages.sending import MESSAGE
from dbosflow.serde import dump_undeclared
from dbosflow.streams.inputs import check_idempotency_key


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
            SerializationError: JSON cannot carry the value.
            ConfigurationError: the workflow id, topic or idempotency key is not valid.
        """
        return await self._host.bridge(self._send(workflow_id, value, topic, idempotency_key))

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _send(self, workflow_id: str, value: object, topic: str, idempotency_key: str | None) -> int:
        check_identifier("workflow id", workflow_id)
        once = check_idempotency_key(idempotency_key)
        text = dump_undeclared(value, MESSAGE)
        return await self._core.send(
            workflow_id, check_topic(topic), text, None if once is None else of_idempotency_key(once)
        )
