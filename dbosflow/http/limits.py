"""How much a client may ask of the application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from dbosflow.config import check_seconds, check_whole
from dbosflow.http.problems import plain_problem

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LARGEST = 2**31


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask of the application.

    Raises:
        ConfigurationError: a limit is not valid.
    """

    body_bytes: int = 1024 * 1024
    """The largest body of a request; above it the answer is 413."""
    header_bytes: int = 32 * 1024
    """The headers of a request, with its path and query; above it the answer is 431."""
    answers: int = 10_000
    """Answers that go on at a time; above it the answer is 503."""
    send_timeout: float = 60.0
    """Seconds in which a client has to take what was sent, else it counts as gone."""

    def __post_init__(self) -> None:
        for name in ("body_bytes", "header_bytes", "answers"):
            check_whole(name, getattr(self, name), 1, _LARGEST)
        check_seconds("send_timeout", self.send_timeout)


class LimitedRequests:
    """Middleware that refuses requests which are too large."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        size = sum(len(name) + len(value) for name, value in headers)
        size += len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size > self._limits.header_bytes:
            await _too_large(431, "the headers are too large")(scope, receive, send)
            return
        length = dict(headers).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._limits.body_bytes:
            await _too_large(413, "the body is too large")(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        """Counts the body of a request that does not say its length."""
        left = self._limits.body_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "the body is too large")
            return message

        return counted


def _too_large(status: int, message: str) -> Response:
    return plain_problem(status, message, {"Connection": "close"})
