"""The server of ``dbosflow serve``: uvicorn, which asks the clients of streams to leave before it stops."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbosflow.errors import ConfigurationError

try:
    import uvicorn
except ImportError:
    raise ConfigurationError("serving needs uvicorn: pip install 'dbosflow[http]'") from None

if TYPE_CHECKING:
    from collections.abc import Generator

    from dbosflow.http.app import HttpApp

_GRACE = 5
"""Seconds that requests under way get when the server stops."""


class Server(uvicorn.Server):
    """A uvicorn server of an application. Whoever runs it handles the signals, and calls ``stop``."""

    def __init__(self, app: HttpApp, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host,
                port,
                lifespan="off",
                log_config=None,
                access_log=False,  # it would have the tokens that are in URLs
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._http_app = app

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures none."""
        yield

    def stop(self) -> None:
        """Has the server ask its clients to leave, and then stop."""
        self._http_app.drain()
        self.should_exit = True


async def serve(app: HttpApp, host: str, port: int) -> None:
    """Serves an application until the task is cancelled."""
    server = Server(app, host, port)
    serving = asyncio.ensure_future(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.stop()
        await serving
        raise
