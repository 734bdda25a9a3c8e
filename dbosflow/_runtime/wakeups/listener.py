"""Receives wake-ups of other processes: one LISTEN connection a process, which is replaced when it breaks.

Order matters: first LISTEN, then read. So after each (re)connect every subscriber is woken once; and when a part of the
topics gets its first subscriber, the subscribers of that part: commits before the LISTEN are read now, later commits
are notified. A safety poll does the same now and then, slowly while LISTEN is healthy and fast while it is not.
Correctness never rests on a hint.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dbosflow._runtime.process.service import Service
from dbosflow._store.connect import connect_async
from dbosflow._store.notify import EVERYBODYS, listen, topics_of, unlisten

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Notify

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.connection import Connection
    from dbosflow.config import Settings

_KEEPALIVE = 5.0
"""Seconds of silence after which the connection is tested, and parts without subscribers are left."""


class Listener(Service):
    """The LISTEN connection, where there can be one. ``healthy`` is an event that is set while LISTEN works."""

    def __init__(self, url: str, settings: Settings, wakeups: Wakeups, is_own: Callable[[int], bool]) -> None:
        # A pooler's session would go on listening, and notify the next client that gets it: there, only polls work.
        self._listens = settings.listen_url is not None or not settings.pooled
        super().__init__("listener", interval=_KEEPALIVE if self._listens else None)
        self._url = settings.listen_url or url
        self._settings = settings
        self._wakeups = wakeups
        self._is_own = is_own
        self._connection: Connection | None = None
        self._parts: frozenset[str] = frozenset()
        """The parts that the connection listens to."""
        self._tried_at = 0.0
        self.healthy = asyncio.Event()
        self.on_unhealthy: Callable[[], None] = lambda: None
        wakeups.on_wanted = self.wake

    async def work_once(self) -> bool:
        """Listens to the parts that have subscribers. A lost connection raises, and is replaced at the next call."""
        if not self._listens:
            return False
        try:
            if self._connection is None:
                await self._begin()
            else:
                await self._go_on(self._connection)
        except BaseException:
            await self._end()
            raise
        return False

    async def close(self) -> None:
        """Stops listening."""
        await super().close()
        await self._end()

    async def _begin(self) -> None:
        connection = self._connection = await connect_async(self._url, timeout=self._settings.connect_timeout)
        connection.add_notify_handler(self._heard)
        connection.on_lost = self.wake
        self._parts = self._wanted()
        await listen(connection, self._settings.schema, self._parts)
        self._tried_at = time.monotonic()
        self.healthy.set()
        self._wakeups.wake_all()

    async def _go_on(self, connection: Connection) -> None:
        schema, wanted = self._settings.schema, self._wanted()
        new, unwanted = wanted - self._parts, self._parts - wanted
        if new:
            await listen(connection, schema, new)
            self._parts |= new
            for part in new:
                self._wakeups.wake_part(part)
        elif not connection.broken and time.monotonic() - self._tried_at < _KEEPALIVE / 2:
            return
        elif unwanted:
            self._parts -= unwanted  # before: a subscriber that comes from here on has the part listened to again
            await unlisten(connection, schema, unwanted)
        else:  # the cheapest round trip: a dead connection raises
            await listen(connection, schema)
        self._tried_at = time.monotonic()

    def _wanted(self) -> frozenset[str]:
        return self._wakeups.parts | {EVERYBODYS}

    def _heard(self, notification: Notify) -> None:
        if not self._is_own(notification.pid):  # this process was woken directly
            self._wakeups.wake(topics_of(notification.payload))

    async def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.healthy.clear()
            self.on_unhealthy()
            await connection.close()


class SafetyPoll(Service):
    """Wakes every subscriber now and then, in case a hint was lost."""

    def __init__(self, settings: Settings, wakeups: Wakeups, listener: Listener) -> None:
        super().__init__("safety-poll", interval=settings.fast_poll)
        self._settings = settings
        self._wakeups = wakeups
        self._listener = listener
        listener.on_unhealthy = self.wake

    async def work_once(self) -> bool:
        """Wakes all subscribers; the pause until the next time depends on LISTEN."""
        healthy = self._listener.healthy.is_set()
        self._interval = self._settings.safety_poll if healthy else self._settings.fast_poll
        self._wakeups.wake_all()
        return False
