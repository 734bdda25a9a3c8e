"""Hears wake-ups of other processes: one LISTEN connection a process, healed by itself.

Order matters: first LISTEN, then read. So after each (re)connect every subscriber is woken once: what was committed
before the LISTEN is read now, what is committed after it is notified. A safety poll does the same now and then, slowly
while LISTEN is healthy and fast while it is not. A hint is never what correctness rests on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow._runtime.service import Service
from dbosflow._store.connect import connect_async
from dbosflow._store.notify import listen, topics_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.signals import Signals
    from dbosflow.config import Settings

_KEEPALIVE = 5.0
"""Seconds of silence after which the connection is tried."""


class Listener(Service):
    """The LISTEN connection, where there can be one. ``healthy`` is an event that is set while it works."""

    def __init__(self, url: str, settings: Settings, signals: Signals, is_own: Callable[[int], bool]) -> None:
        # A session that a pooler hands on would go on listening, and tell whoever gets it next: there only polls work.
        self._listens = settings.listen_url is not None or not settings.pooled
        super().__init__("listener", interval=0 if self._listens else None)
        self._url = settings.listen_url or url
        self._settings = settings
        self._signals = signals
        self._is_own = is_own
        self.healthy = asyncio.Event()
        self.on_unhealthy: Callable[[], None] = lambda: None

    async def work_once(self) -> bool:
        """Listens until the connection ends; that is an error, tried again."""
        if not self._listens:
            return False
        connection = await connect_async(self._url, timeout=self._settings.connect_timeout)
        try:
            await listen(connection, self._settings.schema)
            self.healthy.set()
            self._signals.wake_all()
            while True:
                async for notification in connection.notifies(timeout=_KEEPALIVE):
                    if not self._is_own(notification.pid):  # this process was woken directly
                        self._signals.wake(topics_of(notification.payload))
                await listen(connection, self._settings.schema)  # the cheapest round trip: a dead connection raises
        finally:
            self.healthy.clear()
            self.on_unhealthy()
            await connection.close()


class SafetyPoll(Service):
    """Wakes every subscriber now and then, in case a hint was lost."""

    def __init__(self, settings: Settings, signals: Signals, listener: Listener) -> None:
        super().__init__("safety-poll", interval=settings.fast_poll)
        self._settings = settings
        self._signals = signals
        self._listener = listener
        listener.on_unhealthy = self.wake

    async def work_once(self) -> bool:
        """Wakes all; the pause until the next time depends on LISTEN."""
        healthy = self._listener.healthy.is_set()
        self._interval = self._settings.safety_poll if healthy else self._settings.fast_poll
        self._signals.wake_all()
        return False
