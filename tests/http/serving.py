"""A server on a port of its own, in the loop of a test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from dbosflow.http.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow.http import HttpApp


@asynccontextmanager
async def serving(app: HttpApp, port: int = 0) -> AsyncIterator[httpx.AsyncClient]:
    """Serves an application for the time of the block, on any port; gives a client of it."""
    server = Server(app, "127.0.0.1", port)
    task = asyncio.create_task(server.serve())
    try:
        async with httpx.AsyncClient(base_url=server.url) as client:
            yield client
    finally:
        server.stop()
        await task
