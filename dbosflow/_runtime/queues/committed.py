"""Looks for the commits of users' transactions in which this engine has written starts and messages.

Nobody notifies us of a commit: NOTIFY beside data would take an instance-wide lock until the commit is flushed. So the
engine that wrote the rows remembers the transaction's id, and asks the server whether it is over: first after a few
milliseconds, then in growing pauses of at most a second, for all transactions in one statement. What is committed is
announced like any other start; what was rolled back is forgotten. A commit is found within 20 ms, or within a fifth
of the time that the transaction was open. If this process dies, polls find the rows.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.process.service import Service
from dbosflow._store import outbox
from dbosflow._store.queries import is_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg_pool import AsyncConnectionPool

_FIRST, _LONGEST = 0.015, 0.8
"""Seconds between two looks for one transaction."""
_SHARE = 0.2
"""A pause as a part of the time that the transaction is open."""
_FORGOTTEN = 86_400.0
"""Seconds after which an open transaction is left to the polls."""


@dataclass(slots=True)
class _Open:
    """A transaction that was not over when last looked at."""

    began: float
    due: float
    topics: set[str]


class Committed(Service):
    """The transactions of this engine's users."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str, announce: Callable[[Iterable[str]], None]) -> None:
        super().__init__("committed", interval=None)
        self._pool = pool
        self._schema = schema
        self._announce = announce
        self._open: dict[str, _Open] = {}
        self._loop = asyncio.get_running_loop()

    def expect(self, transaction: str, topics: Iterable[str]) -> None:
        """Announces these topics once the transaction has committed."""
        now = self._loop.time()
        known = self._open.setdefault(transaction, _Open(now, now + _FIRST, set()))
        known.topics.update(topics)
        known.due = min(known.due, now + _FIRST)
        self.wake()

    async def work_once(self) -> bool:
        """Looks for those transactions whose time has come, and says how long to wait for the next."""
        now = self._loop.time()
        due = [one for one, known in self._open.items() if known.due <= now]
        if due:
            await self._look(due)
        self._interval = None
        if self._open:
            # The base class lengthens or shortens a pause by up to a quarter.
            self._interval = max(min(known.due for known in self._open.values()) - self._loop.time(), 0.0) / 1.25
        return False

    async def _look(self, due: list[str]) -> None:
        try:
            async with self._pool.connection() as connection:
                over = await outbox.over(connection, self._schema, due)
        except psycopg.Error as error:
            if not is_refused(error):
                raise
            over = dict.fromkeys(due, True)  # after a failover the server may not know a transaction: so look there
        topics = {topic for one, committed in over.items() if committed for topic in self._open[one].topics}
        now = self._loop.time()
        for one in due:
            known = self._open[one]
            known.due = now + min(max(_FIRST, _SHARE * (now - known.began)), _LONGEST)
            if one in over or now - known.began > _FORGOTTEN:
                del self._open[one]
        if topics:
            self._announce(topics)
