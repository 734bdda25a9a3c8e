"""Problem details (RFC 9457): what a client gets in place of an answer, and nothing of the inside.

A problem has a ``type``, ``urn:problem-type:dbosflow:`` and one of the words below, by which programs tell problems
apart; a ``title``, a ``status``, and a ``detail`` where there is something to say that the client may know.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import JSONResponse

from dbosflow.errors import (
    AlreadyAnsweredError,
    CodecError,
    ConfigurationError,
    DatabaseUnavailableError,
    EngineClosedError,
    EventNotFoundError,
    InboxFullError,
    MessageTooLargeError,
    RejectedError,
    RequestRefusedError,
    SerializationError,
    StreamClosedError,
    StreamFullError,
    StreamInputError,
    StreamValueTooLargeError,
    TokenNotFoundError,
    WaitTimeoutError,
    WorkflowBlockedError,
    WorkflowCancelledError,
    WorkflowConflictError,
    WorkflowEndedError,
    WorkflowNotFoundError,
    WorkflowTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("dbosflow.http")

TYPE = "urn:problem-type:dbosflow:"
"""How the type of each problem begins."""
MEDIA_TYPE = "application/problem+json"


class Problem(NamedTuple):
    """A kind of problem."""

    status: int
    word: str
    title: str


_LARGE = Problem(413, "too-large", "The value is too large.")
_FULL = Problem(429, "full", "There is no room for more now.")
_PROBLEMS: dict[type[Exception], Problem] = {
    WorkflowNotFoundError: Problem(404, "workflow-not-found", "There is no such workflow."),
    TokenNotFoundError: Problem(404, "token-not-found", "There is no such token."),
    EventNotFoundError: Problem(404, "event-not-found", "The workflow has not set the event."),
    StreamInputError: Problem(404, "input-not-found", "The workflow has no such input."),
    AlreadyAnsweredError: Problem(409, "already-answered", "There is an answer already, and it counts."),
    WorkflowConflictError: Problem(409, "conflict", "The id is that of another workflow."),
    StreamClosedError: Problem(409, "closed", "The stream is closed."),
    WorkflowCancelledError: Problem(409, "workflow-cancelled", "The workflow was cancelled."),
    WorkflowEndedError: Problem(410, "workflow-ended", "The workflow has ended."),
    MessageTooLargeError: _LARGE,
    StreamValueTooLargeError: _LARGE,
    SerializationError: Problem(422, "not-valid", "The request does not have the form that is expected."),
    ConfigurationError: Problem(422, "not-valid", "The request does not have the form that is expected."),
    RejectedError: Problem(422, "rejected", "The workflow has rejected the request."),
    InboxFullError: _FULL,
    StreamFullError: _FULL,
    # The server is at fault, and no later time mends it: a 503 would have clients ask for ever.
    CodecError: Problem(500, "unreadable", "The server cannot read what is stored."),
    DatabaseUnavailableError: Problem(503, "unavailable", "The database does not answer."),
    EngineClosedError: Problem(503, "unavailable", "The server is closing."),
    WorkflowBlockedError: Problem(503, "workflow-blocked", "The workflow is blocked until somebody resumes it."),
    WorkflowTimeoutError: Problem(504, "workflow-timed-out", "The workflow has not ended by its deadline."),
    WaitTimeoutError: Problem(504, "timed-out", "There was no answer in time."),
}
_OUTCOMES = (RequestRefusedError, WorkflowCancelledError, WorkflowTimeoutError, WorkflowBlockedError, CodecError)
"""The errors of a workflow's end, and of reading it, that are told apart; others of ours may come from its body."""
_FAILED = Problem(500, "workflow-failed", "The workflow has failed.")
_RETRY_SOON = {"Retry-After": "1"}


class _ProblemResponse(JSONResponse):
    """Only ASCII: what a client has sent, and is told about, may hold what UTF-8 cannot."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


def problem(
    status: int, word: str, title: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """The response for a problem.

    Args:
        status: the HTTP status.
        word: the end of its type.
        title: what it is, in words that are the same each time.
        headers: more headers.
        members: ``detail``, and other members; those that are ``None`` are left out.
    """
    body = {"type": TYPE + word, "title": title, "status": status}
    body |= {name: value for name, value in members.items() if value is not None}
    return _ProblemResponse(body, status, headers={"Cache-Control": "no-store", **(headers or {})})


def plain_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response for a problem that says no more than its status does, but for ``detail``."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return _ProblemResponse(body, status, headers={"Cache-Control": "no-store", **(headers or {})})


def log_unreadable(error: CodecError) -> None:
    """Says in the log which key or codec this server lacks. The error holds nothing of what is stored."""
    logger.error("a request is not answered, because what it asks for cannot be read here: %s", error)


def known_problem(error: BaseException) -> JSONResponse | None:
    """The response for an error of dbosflow's that a client is to know by its class; ``None`` for any other.

    The text of the error is for the log only: it may hold names and values that the client is not to know.
    """
    if isinstance(error, CodecError):
        log_unreadable(error)
    if isinstance(error, RequestRefusedError):
        return problem(error.status, "refused", "The request is refused.", detail=error.detail)
    kind = next((_PROBLEMS[one] for one in type(error).__mro__ if one in _PROBLEMS), None)
    if kind is None:
        return None
    reason = error.reason if isinstance(error, WorkflowCancelledError) else None
    return problem(*kind, headers=_RETRY_SOON if kind.status in {429, 503} else None, reason=reason)


def problem_of_outcome(error: BaseException) -> JSONResponse:
    """The response for the error that a workflow has ended with. Its author's exceptions are all the same to a client.

    The worker that ran the workflow has logged them.
    """
    known = known_problem(error) if isinstance(error, _OUTCOMES) else None
    return known or problem(*_FAILED)
