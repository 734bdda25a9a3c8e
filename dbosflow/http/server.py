"""The server of ``dbosflow serve``: uvicorn, which asks the clients of streams to leave before it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
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

logger = logging.getLogger("dbosflow.http")

_GRACE = 5
"""Seconds that requests under way get when the server stops."""


class Server(uvicorn.Server):
    """A uvicorn server of one application, on one address. Whoever runs it handles the signals, and calls ``stop``.

    Args:
        app: the application.
        host: the address to listen on.
        port: the port; 0: any that is free.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, app: HttpApp, host: str = "127.0.0.1", port: int = 8000) -> None:
        config = uvicorn.Config(
            app,
            http="h11",  # the only parser that bounds headers
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # it would have the tokens that are in URLs
            server_header=False,
            proxy_headers=False,  # whoever comes through a proxy does not come from this machine
            h11_max_incomplete_event_size=app.context.limits.header_bytes + 1024,
            timeout_graceful_shutdown=_GRACE,
        )
        super().__init__(config)
        self._http_app = app
        self._socket = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=config.backlog
        )

    @property
    def url(self) -> str:
        """The address at which it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until ``stop`` is called."""
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        logger.info("serving at %s", self.url)
        with self._socket:
            await super().serve([self._socket, *(sockets or ())])

    def stop(self) -> None:
        """Asks the clients of streams to leave, and then stops. Call it on the server's loop."""
        self._http_app.drain()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures none."""
        yield


async def serve(app: HttpApp, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serves an application until the task is cancelled; then asks its clients to leave, and stops.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = Server(app, host, port)
    serving = asyncio.ensure_future(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.stop()
        await serving
        raise
