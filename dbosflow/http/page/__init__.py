"""The page of ``dbosflow demo --web``: a chat that shows one durable stream, in plain HTML, CSS and JavaScript.

The page needs no build step and no other host. It holds no state of its own but the offset of the last event: after a
refresh, in a second tab or after a lost connection it reads the stream, and shows the same.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from dbosflow.http.context import HttpContext

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/chat.css": ("chat.css", "text/css; charset=utf-8"),
    "/page/chat.js": ("chat.js", "text/javascript; charset=utf-8"),
    "/page/transcript.js": ("transcript.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes(context: HttpContext) -> list[BaseRoute]:
    """The routes of the page and its parts."""

    async def show(request: Request, name: str, media_type: str) -> Response:
        await context.access.check(request, None, "read")
        content = (files(__package__) / name).read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {**_HEADERS, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    def shows(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await show(request, name, media_type)

        return answer

    return [Route(path, shows(*file), methods=["GET"]) for path, file in _FILES.items()]
