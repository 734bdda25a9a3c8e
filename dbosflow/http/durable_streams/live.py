"""Answers that wait: they end at once when their client is gone, or when the server drains."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.responses import Response

from dbosflow.errors import CodecError
from dbosflow.http.problems import log_unreadable
from dbosflow.http.responses import while_wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from dbosflow.http.context import HttpContext

_FAREWELL = 1.0
"""Seconds for the end of an answer to a client that may not read."""


class LiveResponse(Response):
    """Parts of a body, each as soon as it is there. The client counts as gone if it does not take them."""

    def __init__(self, parts: AsyncIterator[bytes], headers: dict[str, str], context: HttpContext) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._parts = parts
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI)
        """Sends the parts."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sent = await while_wanted(self._send(send), receive, self._context.drain)
        if sent is not None and not sent.result():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> bool:
        """Sends the parts. Returns whether the client has taken all of them."""
        try:
            async for part in self._parts:
                if not await self._send_part(part, send):
                    return False
        except CodecError as error:  # the client comes again, and learns it by the status
            log_unreadable(error)
        return True

    async def _send_part(self, part: bytes, send: Send) -> bool:
        try:
            async with asyncio.timeout(self._context.limits.send_timeout):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            return False
        return True
