"""A server with endpoints on a port of this machine, and clients of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest

from dbosflow import Engine
from dbosflow.http import create_app
from dbosflow.http.server import Server
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager


class Serve(Protocol):
    """The type of the fixture ``serve``."""

    def __call__(self, *endpoints: Any, **options: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """A client of a server with these endpoints, and these options of ``create_app``."""


@asynccontextmanager
async def served(engine: Engine, *endpoints: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with these endpoints."""
    server = Server(create_app(engine, endpoints=endpoints, **options), "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve())
    try:
        await eventually_async(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.stop()
        await serving


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    """An engine on the test's loop."""
    async with Engine(database_url, grace=0.0) as engine:
        yield engine


@pytest.fixture
def serve(engine: Engine) -> Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]:
    """Serves endpoints of the test's engine."""

    def serve(*endpoints: Any, **options: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return served(engine, *endpoints, **options)

    return serve
