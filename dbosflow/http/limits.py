"""How much a client may ask of the application."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from dbosflow.config import check_seconds, check_whole
from dbosflow.http.event_source import is_event_source, later
from dbosflow.http.problems import plain_problem

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LARGEST = 2**31
_CLOSE = {"Connection": "close"}


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
    receive_timeout: float = 60.0
    """Seconds in which a client has to send the body of a request; above it the answer is 408. With ``dbosflow serve``
    also its headers, else the connection is closed."""
    requests_per_address: int | None = None
    """Requests under way at a time from one address, with the answers that go on; above it the answer is 429. ``None``:
    as many as ``answers`` permits, which is right behind a proxy, where all clients seem to have its address."""

    def __post_init__(self) -> None:
        for name in ("body_bytes", "header_bytes", "answers"):
            check_whole(name, getattr(self, name), 1, _LARGEST)
        if self.requests_per_address is not None:
            check_whole("requests_per_address", self.requests_per_address, 1, _LARGEST)
        check_seconds("send_timeout", self.send_timeout)
        check_seconds("receive_timeout", self.receive_timeout, above_zero=True)


class LimitedRequests:
    """Middleware that refuses requests which are too large, too slow, or too many of one address."""

    def __init__(self, app: ASGIApp, limits: Limits, retry: float) -> None:
        self._app = app
        self._limits = limits
        self._retry = retry
        self._under_way: Counter[str] = Counter()

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
        await self._of_address(scope, self._bounded(receive), send)

    async def _of_address(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on unless there are too many of its address."""
        most, client = self._limits.requests_per_address, scope.get("client")
        if most is None or client is None:
            await self._app(scope, receive, send)
            return
        address = client[0]
        if self._under_way[address] >= most:
            await self._too_many(Headers(scope=scope), scope["method"])(scope, receive, send)
            return
        self._under_way[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]

    def _too_many(self, headers: Headers, method: str) -> Response:
        if is_event_source(method, headers):
            return later(self._retry)
        return plain_problem(429, "there are too many requests of this address", {"Retry-After": "1"})

    def _bounded(self, receive: Receive) -> Receive:
        """Receives a body that is not too large, though its length may be unknown, and comes in time."""
        left = self._limits.body_bytes
        ends_at = asyncio.get_running_loop().time() + self._limits.receive_timeout
        is_whole = False

        async def bounded() -> Message:
            nonlocal left, is_whole
            try:
                async with asyncio.timeout_at(None if is_whole else ends_at):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not come in time", _CLOSE) from None
            is_whole = not message.get("more_body", False)
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "the body is too large", _CLOSE)
            return message

        return bounded


def _too_large(status: int, message: str) -> Response:
    return plain_problem(status, message, _CLOSE)
