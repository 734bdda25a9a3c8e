"""A proxy before Postgres, which loses answers: the statement arrives and is committed, and no client learns of it."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict

from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


class Proxy:
    """Hands on what it is given, in both directions; ``lossy`` is how likely an answer is lost with its connection."""

    def __init__(self, url: str) -> None:
        target = conninfo_to_dict(url)
        self._host, self._port = str(target["host"]), int(target.get("port") or 5432)
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        self.url = with_parameters(url, host="127.0.0.1", port=str(port), sslmode="disable", gssencmode="disable")
        self.lossy = 0.0
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections; those that are there end with their ends."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def sent(self, client: socket.socket, data: bytes) -> None:
        """Sees what a client sends, before it is handed on. Called by a thread of each client's own."""

    def handed_on(self, data: bytes) -> bytes:
        """What goes to the server of what a client sends."""
        return data

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                with suppress(OSError):  # else this client's misfortune
                    server = self._connect()
                    for one, other, answers in ((client, server, False), (server, client, True)):
                        threading.Thread(target=self._pump, args=(one, other, answers), daemon=True).start()

    def _connect(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, self._port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(Path(self._host) / f".s.PGSQL.{self._port}"))
        return server

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:  # noqa: FBT001 (a thread's)
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if answers and random.random() < self.lossy:
                    self.lost += 1
                    break
                if not answers:
                    self.sent(source, data)
                target.sendall(data if answers else self.handed_on(data))
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if answers:
            source.close()
            target.close()


@contextmanager
def proxy(url: str) -> Iterator[Proxy]:
    """A proxy before the server of ``url`` during the block."""
    before = Proxy(url)
    try:
        yield before
    finally:
        before.close()
