"""A client of an ASGI application that reads an answer while it is being sent, and may leave at any time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from tests.http.events import Received, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from starlette.types import ASGIApp, Message

PATIENCE = 60.0
"""Seconds for whatever is to come."""


class Connection:
    """One request to ``app``, and its answer so far."""

    def __init__(
        self,
        app: ASGIApp,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes = b"",
        *,
        client: str = "127.0.0.1",
    ) -> None:
        path, _, query = path.partition("?")
        given = {"host": "localhost", **{name.lower(): value for name, value in (headers or {}).items()}}
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": (client, 1234),
            "server": ("127.0.0.1", 80),
        }
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.parts: list[bytes] = []
        self.ended = False
        self.takes: int | None = None
        """After so many parts the client takes nothing any more."""
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        self._requested = False
        self._sent = body
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._requested:
            self._requested = True
            return {"type": "http.request", "body": self._sent, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.takes is not None and len(self.parts) >= self.takes:
            await asyncio.Event().wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.parts.append(message.get("body", b""))
            self.body += self.parts[-1]
            self.ended = not message.get("more_body", False)
        self._news.set()

    @property
    def events(self) -> list[Received]:
        """The events so far."""
        return parsed(self.body.decode())

    async def until(self, event: str, count: int = 1) -> list[Received]:
        """Waits for the ``count``-th event of a kind; returns all so far."""
        while sum(one.event == event for one in self.events) < count:
            await self.news()
        return self.events

    async def news(self) -> None:
        """Waits for the next part of the answer."""
        async with asyncio.timeout(PATIENCE):
            await self._news.wait()
        self._news.clear()

    async def whole(self) -> list[Received]:
        """Waits for the end of the answer; returns all events."""
        async with asyncio.timeout(PATIENCE):
            await self.task
        return self.events

    async def leave(self) -> None:
        """Ends the connection, as a client that is gone."""
        self._gone.set()
        async with asyncio.timeout(PATIENCE):
            await self.task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.leave()
