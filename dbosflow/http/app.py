"""The ASGI application: its parts, its middleware and its errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from dbosflow.config import check_seconds
from dbosflow.errors import (
    CodecError,
    ConfigurationError,
    DatabaseUnavailableError,
    EngineClosedError,
    WorkflowConflictError,
    WorkflowNotFoundError,
)
from dbosflow.http import streams as stream_routes
from dbosflow.http.access import Access
from dbosflow.http.context import HttpContext
from dbosflow.http.drain import Drain
from dbosflow.http.durable_streams import headers
from dbosflow.http.limits import LimitedRequests, Limits
from dbosflow.http.problems import known_problem, plain_problem
from dbosflow.http.responses import HEARTBEAT
from dbosflow.streams.declared import key_of
from dbosflow.workflows import spec_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from dbosflow.engine import Engine
    from dbosflow.http.access import Authorize
    from dbosflow.http.context import MakeRoutes
    from dbosflow.http.durable_streams import DurableStreams
    from dbosflow.http.tokens import ReadTokens
    from dbosflow.streams.declared import Stream
    from dbosflow.workflows import Workflow

logger = logging.getLogger("dbosflow.http")

REQUEST_HEADERS = ["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer"]
"""Headers that pages of the permitted other sites may send."""
ANSWER_HEADERS = ["Content-Location", "ETag", "Location", "Retry-After", "Workflow-Id"]
"""Headers that those pages may read."""


class HttpApp:
    """An ASGI application over one engine. Made by ``create_app``."""

    def __init__(self, context: HttpContext, parts: Sequence[MakeRoutes]) -> None:
        self.context = context
        self._app = Starlette(
            routes=[route for part in parts for route in part(context)],
            middleware=_middleware(context),
            exception_handlers={
                HTTPException: _refused,
                WorkflowNotFoundError: _not_found,
                WorkflowConflictError: _conflict,
                ConfigurationError: _invalid,
                CodecError: _unreadable,
                EngineClosedError: _unavailable,
                DatabaseUnavailableError: _unavailable,
                Exception: _failed,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        await self._app(scope, receive, send)

    def drain(self) -> None:
        """Asks the clients of streams to connect again elsewhere, and takes no new ones. Call it on the server's loop.

        A server calls it when it is about to stop; ``dbosflow serve`` does.
        """
        self.context.drain.begin()

    async def drained(self) -> None:
        """Waits until the answers that have ended have left nothing to be done: then the engine may close."""
        await self.context.drain.settled()


def _middleware(context: HttpContext) -> list[Middleware]:
    found = [Middleware(LimitedRequests, limits=context.limits, retry=context.retry)]
    origins = context.access.origins
    if origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_credentials="*" not in origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[*REQUEST_HEADERS, *headers.SENT],
            expose_headers=[*ANSWER_HEADERS, *headers.EXPOSED],
        )
        found.insert(0, cors)
    return found


def create_app(
    engine: Engine,
    *,
    streams: Iterable[str | Stream[Any, Any]] = (),
    workflows: Iterable[Workflow[..., Any, Any]] | None = None,
    authorize: Authorize | None = None,
    tokens: ReadTokens | None = None,
    origins: Collection[str] = (),
    show_errors: bool = False,
    limits: Limits | None = None,
    heartbeat: float = HEARTBEAT,
    retry: float = 1.0,
    endpoints: Iterable[MakeRoutes] = (),
    durable_streams: DurableStreams | None = None,
) -> HttpApp:
    """An ASGI application that serves the streams of an engine's workflows: to mount, or to serve.

    ``GET /workflows/{id}/streams/{key}`` reads a stream, as server-sent events, NDJSON or JSON.

    Args:
        engine: the engine. Open it before the first request.
        streams: the streams that may be read. No other one is reachable.
        workflows: the workflows whose streams may be read; by default all that this process knows.
        authorize: decides about each request: ``authorize(request, workflow_id, action)``, sync or async. Without it
            only this machine is answered.
        tokens: signs and checks permissions to read, which take the place of the hook.
        origins: origins of other sites whose pages may call, like ``https://app.example.com``; ``"*"``: pages of all
            sites may read, without cookies.
        show_errors: whether ``error`` events have the name and the message of a workflow's exception.
        limits: how much a client may ask.
        heartbeat: seconds without news after which a client gets a sign of life.
        retry: seconds after which an ``EventSource`` connects again whose connection was lost.
        endpoints: further routes: what ``expose``, ``expose_messages``, ``expose_tokens``, ``expose_openapi``, ``chat``
            and ``openai`` have made, or a function that makes routes of its own for the application.
        durable_streams: where to serve streams by the Durable Streams protocol, these and such as belong to no
            workflow; by default nowhere.

    Raises:
        ConfigurationError: an argument is not valid.
    """
    limits = limits or Limits()
    check_seconds("heartbeat", heartbeat)
    check_seconds("retry", retry)
    context = HttpContext(
        engine,
        Access(authorize, origins, tokens),
        Drain(limits.answers),
        frozenset(map(key_of, streams)),
        None if workflows is None else frozenset(spec_of(one).definition.name for one in workflows),
        show_errors,
        limits,
        heartbeat,
        retry,
    )
    protocols = [] if durable_streams is None else [durable_streams.routes]
    return HttpApp(context, [stream_routes.routes, *endpoints, *protocols])


def error_response(status: int, message: str, headers: Any = None) -> Response:
    """An answer that says what was wrong."""
    return plain_problem(status, message, headers)


def _refused(request: Request, error: Any) -> Response:  # noqa: ARG001 (Starlette's signature, also below)
    return error_response(error.status_code, error.detail, error.headers)


def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return known_problem(error) or error_response(404, "there is no such workflow")


def _conflict(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return known_problem(error) or error_response(409, "the id is that of another workflow")


def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(400, str(error))


def _unreadable(request: Request, error: Exception) -> Response:
    return known_problem(error) or _failed(request, error)


def _unavailable(request: Request, error: Exception) -> Response:  # noqa: ARG001
    logger.warning("a request was refused: %s", error)
    return known_problem(error) or error_response(503, "not available: try again", {"Retry-After": "1"})


def _failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(500, "an internal error, which is in the server's log")
