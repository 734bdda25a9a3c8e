"""What a scenario plays on: a database, workers and an HTTP server, each of which it can kill."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbosflow._embedded import EmbeddedServer
from dbosflow._store.migrate import migrate
from dbosflow.config import DATABASE_URL_VARIABLE
from tests.support import eventually

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

PATIENCE = 60.0


@dataclass(frozen=True)
class Programs:
    """What runs behind a page."""

    worker: list[str]
    """The command of a worker."""
    server: str
    """The module that serves: by a database, a port, these arguments, and the workers' processes."""
    arguments: list[str]


class Stage:
    """The processes behind the page."""

    def __init__(self, database_url: str, programs: Programs) -> None:
        self._database_url = database_url
        self._programs = programs
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._workers: list[subprocess.Popen[bytes]] = []
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self._port}/"

    def open(self) -> None:
        """Starts two workers and the server."""
        for _ in range(2):
            self.start_worker()
        self.start_server()

    def start_worker(self) -> None:
        """Starts a worker."""
        environment = {**os.environ, DATABASE_URL_VARIABLE: self._database_url}
        self._workers.append(
            subprocess.Popen(self._programs.worker, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        )

    def start_server(self) -> None:
        """Starts the server, and waits until it answers."""
        pids = [str(worker.pid) for worker in self._workers]
        place = [self._database_url, str(self._port), *self._programs.arguments]
        self._server = subprocess.Popen([sys.executable, "-m", self._programs.server, *place, *pids])
        eventually(self._answers, timeout=PATIENCE)

    def end_server(self, number: signal.Signals) -> None:
        """Ends the server by a signal."""
        assert self._server is not None
        self._server.send_signal(number)
        self._server.wait(PATIENCE)

    def kill(self, pid: int) -> None:
        """Kills a worker, and starts another one. No other process: 0 would be all of our own."""
        (worker,) = [one for one in self._workers if one.pid == pid]
        worker.kill()
        self.start_worker()

    def close(self) -> None:
        """Ends everything."""
        for process in (self._server, *self._workers):
            if process is not None:
                process.kill()
                process.wait(PATIENCE)
                if process.stdin is not None:
                    process.stdin.close()

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(self.url, timeout=5) as answer:
            return bool(answer.status == 200)
        return False


@contextmanager
def stage(programs: Programs) -> Iterator[Stage]:
    """A stage on a database of its own."""
    with EmbeddedServer.ephemeral() as server:
        migrate(server.url)
        found = Stage(server.url, programs)
        try:
            found.open()
            yield found
        finally:
            found.close()
