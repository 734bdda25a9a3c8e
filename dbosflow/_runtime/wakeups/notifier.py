"""Sends wake-ups to other processes: on a connection of its own, after the commit, never beside data.

(Those of a lone batch follow it on its own connection instead: see ``notify_behind`` in ``notify.sql``.)

NOTIFY in a transaction that writes takes an instance-wide lock through its commit; a transaction of nothing but NOTIFY
holds it for microseconds, and with ``synchronous_commit=off`` waits for no flush. When the notifier is idle, hints with
waiters elsewhere are on the wire before the commit's own process goes on. Hints for what is awaited here go a little
later: at once, they would take time from the waiters here. While a statement is under way, and while those hints wait,
further hints gather. What a connection was cut with is sent again. Any other failure is a lost hint: readers poll
slowly, too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.process.service import Service, is_final
from dbosflow._runtime.process.session import Session
from dbosflow._sessions import NOTIFIER
from dbosflow._store.notify import answered, make_room, notify, notify_at_once

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.connection import Connection
    from dbosflow.config import Settings


_LATER = 0.01
"""Seconds until a hint that is not urgent goes."""
_MOST = 10_000
"""Hints that wait for a connection: with more, those are forgotten that the one before was cut with."""
_LAST_ANSWER = 1.0
"""Seconds for the answer to the last statement when the notifier closes."""


class Notifier(Service):
    """Hints to other processes."""

    def __init__(self, url: str, settings: Settings, pool: AsyncConnectionPool[Any]) -> None:
        super().__init__("notifier", interval=None)
        self._schema = settings.schema
        self._session = Session(url, settings, NOTIFIER, pool)
        self._topics: dict[str, None] = {}
        self._is_due = False
        """Whether the queued hints are to go as soon as possible."""
        self._timer: asyncio.TimerHandle | None = None
        self._on_wire: Connection | None = None
        self._sent: dict[str, None] = {}
        """The hints of the last statement."""
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def backend_pid(self) -> int | None:
        """The server process of the connection, by which a listener of this engine knows the engine's own hints."""
        return self._session.backend_pid

    def send(self, topics: Iterable[str], *, at_once: bool = False) -> None:
        """Queues hints, each topic once. With ``at_once``, an idle notifier has them on the wire on return."""
        self._topics.update(dict.fromkeys(topics))
        if not at_once:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_LATER, self._later)
            return
        self._is_due = True
        if self._idle.is_set() and (connection := self._session.ready) is not None:
            with suppress(psycopg.Error):  # the hints go over a new connection
                if notify_at_once(connection, self._schema, self._topics):
                    self._on_wire = connection
                    self._take()
        self.wake()

    async def work_once(self) -> bool:
        """Sends what is due, in one statement; or waits for the answer to what was sent at once."""
        try:
            if self._on_wire is not None:
                await answered(self._on_wire)
            elif self._is_due and self._topics:
                topics = self._take()
                async with self._session.turn() as connection:
                    await notify(connection, self._schema, topics)
        except psycopg.errors.ProgramLimitExceeded:
            async with self._session.turn() as connection:
                await make_room(connection)
            raise
        except BaseException as error:
            if not is_final(error) and len(self._topics) < _MOST:  # a connection that was cut: over another one
                self._topics = self._sent | self._topics
                self._is_due = True
            raise
        finally:
            self._on_wire = None
            self._idle.set()
        return self._is_due and bool(self._topics)

    def _take(self) -> dict[str, None]:
        """Takes all queued hints, which are sent now."""
        self._sent, self._topics = self._topics, {}
        self._is_due = False
        self._idle.clear()
        return self._sent

    def _later(self) -> None:
        self._timer = None
        self._is_due = bool(self._topics)
        self.wake()

    async def close(self) -> None:
        """Sends what is left, if that needs no new connection, and disconnects."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWER):
                await self._idle.wait()
        await super().close()
        if self._timer is not None:
            self._timer.cancel()
        with suppress(psycopg.Error):  # then these hints are lost, as any may be
            if self._topics and (connection := self._session.ready) is not None:
                with connection.given_up_after(_LAST_ANSWER):
                    await notify(connection, self._schema, self._topics)
        await self._session.close()
