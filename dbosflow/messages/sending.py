"""Sends messages from inside a workflow or step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._records.spaces import check_topic
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.scope import PlainCall, current_scope, refuse_in_transaction
from dbosflow._runtime.operations import sending
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.config import check_identifier
from dbosflow.errors import NotInWorkflowError
from dbosflow.serde import dump_undeclared

if TYPE_CHECKING:
    from dbosflow._runtime.execution.scope import Scope

MESSAGE = "a message"
"""What errors call it."""


def send(workflow_id: str, value: Any, topic: str = "") -> int:
    """Inside a sync workflow or step: sends a message to a workflow, and returns its offset.

    See ``send_async``, its awaitable twin, for what is guaranteed, and for the errors.
    """
    refuse_on_loop("await send_async(...)")
    scope, text = _scope("send"), _text(workflow_id, value, topic)
    if isinstance(scope, PlainCall):
        return 0
    if isinstance(scope, StepAttempt):
        return drive(sending.send_from_step(scope, scope.run.thread_driver, workflow_id, topic, text))
    return drive(sending.send(scope, workflow_id, topic, text))


async def send_async(workflow_id: str, value: Any, topic: str = "") -> int:
    """Inside a workflow or step: sends a message to a workflow, and returns its offset once it is durable.

    A body sends each message once, in its order, however often it is replayed; that it was sent, or refused, is on
    record. The nth message that a step sends to a topic is sent once, whatever attempt sends it: a later attempt that
    would send another value there finds the first one. In a plain call outside of an engine nothing is sent, and the
    offset is 0.

    Args:
        workflow_id: the workflow that receives the message.
        value: a value that JSON can carry as one of its class.
        topic: the topic, as for ``Engine.send``.

    Raises:
        WorkflowNotFoundError: no workflow has this id.
        WorkflowEndedError: the workflow has ended.
        InboxFullError: too many messages wait on the topic, or the workflow has too many topics.
        MessageTooLargeError: the message is above this engine's ``message_bytes``.
        SerializationError: JSON cannot carry the value.
        NotInWorkflowError: the caller is not in a workflow or step. Use ``engine.send_async`` there.
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: the workflow id or topic is not valid.
    """
    scope, text = _scope("send_async"), _text(workflow_id, value, topic)
    if isinstance(scope, PlainCall):
        return 0
    if isinstance(scope, StepAttempt):
        return await sending.send_from_step(scope, scope.run.loop_driver, workflow_id, topic, text)
    return await sending.send(scope, workflow_id, topic, text)


def _text(workflow_id: str, value: Any, topic: str) -> str:
    check_identifier("workflow id", workflow_id)
    check_topic(topic)
    return dump_undeclared(value, MESSAGE)


def _scope(what: str) -> Scope:
    scope = current_scope()
    if scope is None:
        msg = f"{what} needs a workflow or step around it; anywhere else use engine.{what}(...)"
        raise NotInWorkflowError(msg)
    refuse_in_transaction(what)
    return scope
