"""Errors about messages, events and tokens."""

from __future__ import annotations

from dbosflow.errors.general import DbosflowError
from dbosflow.errors.workflows import WorkflowError


class WorkflowEndedError(WorkflowError):
    """The workflow has ended, and receives nothing any more. Nothing was sent."""


class EventNotFoundError(WorkflowError):
    """The workflow has ended, and has not set the event, or not set it again."""


class TokenNotFoundError(WorkflowError):
    """The workflow has no such token, or the secret in the token's id is not that of the token. Nothing was written."""


class AlreadyAnsweredError(WorkflowError):
    """The token, or the request, has an answer already, which counts. This one was not written."""


class InboxFullError(WorkflowError):
    """The workflow has as many messages as it may have: ``inbox_values`` on the topic, or on ``inbox_topics`` topics.

    Nothing was sent. Room becomes free when the workflow receives messages.
    """


class MessageTooLargeError(WorkflowError):
    """The message is above the engine's ``message_bytes``. Nothing was sent."""


class MessageTimeoutError(DbosflowError, TimeoutError):
    """In a workflow: no message came, or nobody answered the token, within the ``timeout``. A replay raises it, too."""


class RejectedError(DbosflowError):
    """A token or a request was rejected, with a text, or with an exception that cannot be rebuilt from its record."""
