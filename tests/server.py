"""A Postgres of a test's own, which it may restart, crash and fill, without harm to anybody else's."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.errors import OperationalError

from dbosflow._embedded import EmbeddedServer
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAST = signal.SIGINT
IMMEDIATE = signal.SIGQUIT


class Server:
    """An embedded server; its keeper starts it again when it ends."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url) as connection:
            (directory,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        self._pid_file = Path(directory) / "postmaster.pid"

    def restart(self, how: signal.Signals) -> None:
        """Has it shut down (``FAST``: sessions are ended; ``IMMEDIATE``: as by a crash), and come back."""
        before = self._pid()
        os.kill(before, how)
        eventually(lambda: self._pid() not in {0, before} and self._answers())

    @contextmanager
    def full(self) -> Iterator[Callable[[], None]]:
        """Nobody gets a connection during the block; those that are there stay. Gives what takes freed ones, too."""
        with ExitStack() as taken:

            def fill() -> None:
                with suppress(OperationalError):
                    while True:
                        taken.enter_context(psycopg.connect(self.url, application_name="crowd"))

            fill()
            yield fill

    def _pid(self) -> int:
        with suppress(OSError, ValueError, IndexError):
            return int(self._pid_file.read_text().splitlines()[0])
        return 0

    def _answers(self) -> bool:
        with suppress(OperationalError), psycopg.connect(self.url):
            return True
        return False


@contextmanager
def own_server() -> Iterator[Server]:
    """A server that is gone after the block."""
    with EmbeddedServer.ephemeral() as server:
        yield Server(server.url)
