"""Answers that keep a browser's ``EventSource`` alive.

By the HTML standard it connects again when an answer ends, and gives up for good on any status but 200. So what would
be a 503 to other clients is an empty answer to it, which says when to come again.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response

from dbosflow.errors import DatabaseUnavailableError, EngineClosedError
from dbosflow.http.formats import sse
from dbosflow.http.responses import LIVE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.datastructures import Headers
    from starlette.requests import Request

_UNAVAILABLE = 503


def reconnecting(
    handler: Callable[[Request], Awaitable[Response]], retry: float
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of a GET, by which an ``EventSource`` comes again after ``retry`` seconds where it met a 503."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (HTTPException, DatabaseUnavailableError, EngineClosedError) as error:
            if not is_event_source(request.method, request.headers) or not _is_transient(error):
                raise
            return later(retry)

    return answer


def later(retry: float) -> Response:
    """The answer by which an ``EventSource`` comes again after ``retry`` seconds."""
    form = sse(retry)
    return Response(form.opening, headers=LIVE_HEADERS, media_type=form.media_type)


def is_event_source(method: str, headers: Headers) -> bool:
    """Whether a request is that of a browser's ``EventSource``."""
    return method == "GET" and headers.get("accept", "").strip().lower() == "text/event-stream"


def _is_transient(error: Exception) -> bool:
    return not isinstance(error, HTTPException) or error.status_code == _UNAVAILABLE
