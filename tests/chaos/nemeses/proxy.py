"""The network nemesis: a TCP proxy before the server's socket, which cuts, resets, delays and starves connections.

It lives on a thread with an event loop of its own, so that nothing but its faults delays what it carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from typing import Any, Self

_CHUNK = 65536
_ANSWER_LOSS_SECONDS = 1.0
_DELAY = 0.05


class _Link:
    """One connection through the proxy: the client's side and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self.sent_at_loss = False
        """Whether something was forwarded since answers began to be lost."""

    def close(self, *, reset: bool = False) -> None:
        """Ends both sides; with ``reset`` the client sees RST, and loses what it has not read."""
        for writer in (self._client, self._server):
            raw = writer.get_extra_info("socket")
            if reset and writer is self._client and raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort() if reset else writer.close()


class Proxy:
    """Listens on a port of the loopback, and passes on to a Unix socket."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._open = asyncio.Event()
        self._delay = 0.0
        self._losing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0

    def url(self, name: str) -> str:
        """The server's address through this proxy, for sessions that carry the ``name``."""
        options = "sslmode=disable&gssencmode=disable"
        return f"postgresql://dbosflow@127.0.0.1:{self.port}/postgres?{options}&application_name={name}"

    def inject(self, kind: str, seconds: float) -> None:
        """Injects one fault of the plan; returns when it is over."""
        self._call(self._inject(kind, seconds))

    async def _inject(self, kind: str, seconds: float) -> None:
        if kind == "delay":
            self._delay = _DELAY
            await asyncio.sleep(seconds)
            self._delay = 0.0
        elif kind == "blackhole":
            self._open.clear()
            await asyncio.sleep(seconds)
            self._close_all()
            self._open.set()
        elif kind == "lose answer":
            for link in self._links:
                link.sent_at_loss = False
            self._losing = True
            await asyncio.sleep(_ANSWER_LOSS_SECONDS)
            self._losing = False
        else:
            self._close_all(reset=kind == "reset")

    def _close_all(self, *, reset: bool = False) -> None:
        for link in tuple(self._links):
            link.close(reset=reset)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            from_server, to_server = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.close()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(link, reader, to_server, answers=False))
                group.create_task(self._pump(link, from_server, writer, answers=True))
        except* OSError:
            pass
        finally:
            self._links.discard(link)
            link.close()

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while chunk := await source.read(_CHUNK):
            await self._open.wait()
            if self._delay:
                await asyncio.sleep(self._delay)
            if self._losing:
                if answers and link.sent_at_loss:
                    break  # the statement is done, and whoever sent it shall not know
                link.sent_at_loss = True
            sink.write(chunk)
            await sink.drain()
        link.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        assert self._server
        self._server.close()
        self._close_all()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
