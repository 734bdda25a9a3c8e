"""The ASGI application: its parts, its middleware and its errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from dbosflow.errors import ConfigurationError, EngineClosedError, WorkflowNotFoundError
from dbosflow.http import streams as stream_routes
from dbosflow.http.access import Access
from dbosflow.http.context import HttpContext
from dbosflow.http.drain import Drain
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
    from dbosflow.streams.declared import Stream
    from dbosflow.workflows import Workflow

logger = logging.getLogger("dbosflow.http")


class HttpApp:
    """An ASGI application over one engine. Made by ``create_app``."""

    def __init__(self, context: HttpContext, parts: Sequence[MakeRoutes]) -> None:
        self.context = context
        self._app = Starlette(
            routes=[route for part in parts for route in part(context)],
            exception_handlers={
                HTTPException: _refused,
                WorkflowNotFoundError: _not_found,
                ConfigurationError: _invalid,
                EngineClosedError: _unavailable,
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


def create_app(
    engine: Engine,
    *,
    streams: Iterable[str | Stream[Any, Any]] = (),
    workflows: Iterable[Workflow[..., Any, Any]] | None = None,
    authorize: Authorize | None = None,
    origins: Collection[str] = (),
    show_errors: bool = False,
    parts: Sequence[MakeRoutes] = (),
) -> HttpApp:
    """An ASGI application that serves the streams of an engine's workflows: to mount, or to serve.

    Args:
        engine: the engine. Open it before the first request.
        streams: the streams that may be read. No other one is reachable.
        workflows: the workflows whose streams may be read; by default all that this process knows.
        authorize: decides about each request: ``authorize(request, workflow_id, action)``, sync or async. Without it
            only this machine is answered.
        origins: origins of other sites whose pages may call, like ``https://app.example.com``.
        show_errors: whether ``error`` events have the name and the message of a workflow's exception.
        parts: makers of further routes.
    """
    context = HttpContext(
        engine,
        Access(authorize, origins),
        Drain(),
        frozenset(map(key_of, streams)),
        None if workflows is None else frozenset(spec_of(one).definition.name for one in workflows),
        show_errors,
    )
    return HttpApp(context, [stream_routes.routes, *parts])


def error_response(status: int, message: str, headers: Any = None) -> Response:
    """An answer that says what was wrong."""
    return JSONResponse({"error": {"message": message}}, status, headers)


def _refused(request: Request, error: Any) -> Response:  # noqa: ARG001 (Starlette's signature, also below)
    return error_response(error.status_code, error.detail, error.headers)


def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(404, "there is no such workflow")


def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(400, str(error))


def _unavailable(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(503, "not available")


def _failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(500, "an internal error, which is in the server's log")
