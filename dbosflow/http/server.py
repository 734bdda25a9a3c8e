"""The server of ``dbosflow serve``: uvicorn, which asks the clients of streams to leave before it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbosflow.errors import ConfigurationError
from dbosflow.http.responses import FAREWELL

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol  # the only parser that bounds headers
except ImportError:
    raise ConfigurationError("serving needs uvicorn: pip install 'dbosflow[http]'") from None

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from dbosflow.http.app import HttpApp
    from dbosflow.http.limits import Limits

logger = logging.getLogger("dbosflow.http")

_GRACE = 5
"""Seconds that requests under way get when the server stops."""


class Connection(H11Protocol):
    """A connection whose client has to send each request, and to take each answer, in time.

    Uvicorn alone would wait for ever: for the rest of a request, and for a client to take what is left of an answer
    before the connection is closed.

    ```text
    the connection is made ──► clock runs ──► a request begins: stopped ──► its answer is complete ──► clock runs ...
                                  └──► over, and none has begun: the connection is cut
    ```
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app: Any = self.config.app
        limits: Limits = app.context.limits
        self._patience = limits.receive_timeout
        self._send_patience = limits.send_timeout + FAREWELL
        self._clock: asyncio.TimerHandle | None = None
        self._send_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected."""
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """A part of a request has come."""
        super().data_received(data)
        if self._is_answering:
            self._stop_clock()

    def on_response_complete(self) -> None:
        """An answer is complete; of its request there may be a rest that nobody has read."""
        super().on_response_complete()
        self._expect_request()

    def pause_writing(self) -> None:
        """The client takes less than is sent."""
        super().pause_writing()
        self._send_clock = self.loop.call_later(self._send_patience, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken nearly all; if the answer was given up before, the clock runs on for the rest."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_send_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_clock()
        self._stop_send_clock()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def _expect_request(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(self._patience, self._on_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _stop_send_clock(self) -> None:
        if self._send_clock is not None:
            self._send_clock.cancel()
            self._send_clock = None

    def _on_late(self) -> None:
        if not self._is_answering:
            self.transport.abort()


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
            http=Connection,
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
        await self._http_app.drained()

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
