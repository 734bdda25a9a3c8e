"""The session nemesis: foreign sessions that hold what the server has little of, for a while.

``hold xmin``: a snapshot, which keeps every dead row of the meantime from being removed. ``fill``: all connections that
there are. ``lock``: the table of workflows, as a migration does.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import IsolationLevel

from tests.chaos.checkers.workers import Span

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 2
_PAUSE = 0.1
_ONE_SESSION = """
    SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'chaos-%' AND backend_type = 'client backend'"""


class SessionNemesis:
    """Holds a snapshot, all connections, or a table; remembers when a snapshot was held."""

    def __init__(self, url: str, seed: int) -> None:
        self.snapshots: list[Span] = []
        """When a snapshot was held."""
        self.oldest = 0
        """Over how many transactions the oldest one was."""
        self.refused = 0
        """How often the server refused a connection, since it had none left."""
        self._url = url
        self._random = random.Random(f"sessions {seed}")
        self.kinds: dict[str, Callable[[float], None]] = {
            "hold xmin": self.hold_snapshot,
            "fill": self.fill,
            "lock": self.lock,
        }

    def figures(self) -> list[str]:
        """What there is to tell."""
        return [f"oldest snapshot: held over {self.oldest} transactions; no connection was free {self.refused} times"]

    async def inject(self, kind: str, seconds: float) -> None:
        """Injects one of the ``kinds``; returns when it is over."""
        await asyncio.to_thread(self.kinds[kind], seconds)

    def hold_snapshot(self, seconds: float) -> None:
        """Keeps a snapshot; one whose session is cut is followed by another."""
        since = time.time()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                with self._connect("holding a snapshot") as connection:
                    connection.autocommit = False
                    connection.isolation_level = IsolationLevel.REPEATABLE_READ
                    connection.execute("SELECT count(*) FROM dbosflow.worker")
                    connection.execute("SELECT pg_sleep(%s)", (left,))
                    age = "SELECT age(backend_xmin) FROM pg_stat_activity WHERE pid = pg_backend_pid()"
                    self.oldest = max(self.oldest, self._number(connection, age))
            except psycopg.OperationalError:
                time.sleep(_PAUSE)
        self.snapshots.append(Span(since, time.time()))

    def fill(self, seconds: float) -> None:
        """Takes every connection slot of the server, and those of programs' sessions, which it ends meanwhile."""
        until = time.monotonic() + seconds
        with ExitStack() as taken, suppress(psycopg.OperationalError):
            standing = taken.enter_context(self._connect("fill"))
            while time.monotonic() < until:
                self._take_all(taken)
                pids = [pid for (pid,) in standing.execute(_ONE_SESSION).fetchall()]
                if pids:
                    standing.execute("SELECT pg_terminate_backend(%s)", (self._random.choice(pids),))
                time.sleep(_PAUSE)

    def lock(self, seconds: float) -> None:
        """Holds the table of workflows, so that whoever reads or writes it waits."""
        with suppress(psycopg.OperationalError), self._connect("lock") as connection:
            connection.execute("SET lock_timeout = '5s'")
            with connection.transaction():
                connection.execute("LOCK TABLE dbosflow.workflow IN ACCESS EXCLUSIVE MODE")
                connection.execute("SELECT pg_sleep(%s)", (seconds,))

    def _take_all(self, taken: ExitStack) -> None:
        try:
            while True:
                taken.enter_context(self._connect("fill"))
        except psycopg.OperationalError:
            self.refused += 1

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url, autocommit=True, application_name=name, connect_timeout=_PATIENCE)

    @staticmethod
    def _number(connection: psycopg.Connection[Any], query: str) -> int:
        ((number,),) = connection.execute(query.encode()).fetchall()
        return int(number)
