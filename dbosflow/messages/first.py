"""The message that a workflow is started with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._records.producers import of_idempotency_key, unique_outsider
from dbosflow._records.spaces import check_topic, inbox_key
from dbosflow._store.workflow import FirstMessage
from dbosflow.errors import ConfigurationError
from dbosflow.messages.sending import MESSAGE
from dbosflow.serde import dump_undeclared
from dbosflow.streams.inputs import check_idempotency_key

if TYPE_CHECKING:
    from dbosflow.definitions import WorkflowDef


@dataclass(frozen=True, slots=True)
class Message:
    """A message for ``engine.start(..., message=Message(topic, value))``.

    Args:
        topic: the topic, as for ``Engine.send``.
        value: a value that JSON can carry as one of its class.
        idempotency_key: as for ``Engine.send``: a start that is repeated with the same key sends nothing again.
    """

    topic: str
    value: Any
    idempotency_key: str | None = None

    def first(self) -> FirstMessage:
        """The message as it is stored."""
        once = check_idempotency_key(self.idempotency_key)
        producer = unique_outsider() if once is None else of_idempotency_key(once)
        return FirstMessage(inbox_key(check_topic(self.topic)), dump_undeclared(self.value, MESSAGE), producer)


def take_message(definition: WorkflowDef, kwargs: dict[str, Any]) -> Message | None:
    """Takes the message out of a start's keyword arguments, if there is one.

    Raises:
        ConfigurationError: ``message`` is no ``Message``, and no argument of the workflow either.
    """
    message = kwargs.get("message")
    if isinstance(message, Message):
        del kwargs["message"]
        return message
    if "message" in kwargs and not definition.takes("message"):
        msg = f"message={message!r} is no Message: write message=Message(topic, value)"
        raise ConfigurationError(msg)
    return None
