"""Hears wake-ups of other processes: one LISTEN connection a process, healed by itself.

Order matters: first LISTEN, then read. So after each (re)connect every subscriber is woken once, and when the first one
subscribes to a part of the topics, those of that part: what was committed before the LISTEN is read now, what is
committed after it is notified. A safety poll does the same now and then, slowly while LISTEN is healthy and fast while
it is not. A hint is never what correctness rests on.
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
"""Seconds of silence after which the connection is tried, and parts without subscribers are left."""


class Listener(Service):
    """The LISTEN connection, where there can be one. ``healthy`` is an event that is set while it works."""

    def __init__(self, url: str, settings: Settings, wakeups: Wakeups, is_own: Callable[[int], bool]) -> None:
        # A session that a pooler hands on would go on listening, and tell whoever gets it next: there only polls work.
        self._listens = settings.listen_url is not None or not settings.pooled
        super().__init__("listener", interval=_KEEPALIVE if self._listens else None)
        self._url = settings.listen_url or url
        self._settings = settings
        self._wakeups = wakeups
        self._is_own = is_own
        self._connection: Connection | None = None
        self._parts: frozenset[str] = frozenset()
        """What it listens to."""
        self._tried_at = 0.0
        self.healthy = asyncio.Event()
        self.on_unhealthy: Callable[[], None] = lambda: None
        wakeups.on_wanted = self.wake

    async def work_once(self) -> bool:
        """Listens to the parts that have subscribers. A lost connection is an error, and another one follows."""
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
        """Listens no more."""
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
            self._parts -= unwanted  # before: who wants one of them from here on has it listened to again
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
        """Wakes all; the pause until the next time depends on LISTEN."""
        healthy = self._listener.healthy.is_set()
        self._interval = self._settings.safety_poll if healthy else self._settings.fast_poll
        self._wakeups.wake_all()
        return False
