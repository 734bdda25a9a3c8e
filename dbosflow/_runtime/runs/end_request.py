"""A request to end a workflow, in words: for its body, for its children, for its row and the ends of its streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow._runtime.runs.entries import Ending
from dbosflow._store.cancel_request import CANCELLED
from dbosflow.errors import WorkflowCancelledError, WorkflowTimeoutError
from dbosflow.failures import cancelled_error, dump_error
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from dbosflow._store.cancel_request import CancelRequest


def message_of(workflow_id: str, request: CancelRequest | None) -> str:
    """What the body is told by the exception that ends it."""
    reason, timed_out = request or CANCELLED
    if timed_out:
        return f"workflow {workflow_id!r} has not ended by its deadline"
    return f"workflow {workflow_id!r} is cancelled{'' if reason is None else f': {reason}'}"


def exception_of(workflow_id: str, request: CancelRequest | None, *, is_async: bool) -> BaseException:
    """The exception that ends the body: async code is cancelled, sync code gets an error of ours."""
    message, (reason, timed_out) = message_of(workflow_id, request), request or CANCELLED
    if is_async:
        return asyncio.CancelledError(message)
    if timed_out:
        return WorkflowTimeoutError(workflow_id, message)
    return WorkflowCancelledError(workflow_id, message, reason)


def ending_of(workflow_id: str, request: CancelRequest | None) -> Ending:
    """How the workflow ends."""
    reason, timed_out = request or CANCELLED
    if timed_out:
        error = WorkflowTimeoutError(workflow_id, message_of(workflow_id, request))
        return Ending(WorkflowStatus.FAILED, error=dump_error(error), timed_out=True)
    return Ending(WorkflowStatus.CANCELLED, error=cancelled_error(reason))


def reason_for_children(workflow_id: str, request: CancelRequest | None) -> str | None:
    """Why the workflow's children are cancelled with it."""
    reason, timed_out = request or CANCELLED
    return message_of(workflow_id, request) if timed_out else reason
