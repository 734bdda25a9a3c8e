"""Finds suspended workflows that nobody has woken: the hint was lost, or whoever was to send it has died.

It looks at what each of them waits for, page by page, and wakes those for which there is news, and one of each circle
of workflows that wait for each other. A sweep takes one part in a hundred of the time, so that it is no load however
many wait. After the death of a worker it takes all; and so does another one a moment later, when every process has
heard of the death, and wakes who waits for what it brings.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._runtime.wakeups.waker import HEARD_WITHIN
from dbosflow._store import waiter
from dbosflow._store.notify import queue_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow.config import Settings

_SHARE = 0.01
"""How much of the time the slow sweep takes."""
_START = ("", "")


class Sweeper(Service):
    """The sweeps of one engine."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        settings: Settings,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        super().__init__("sweeper", interval=settings.safety_poll)
        self._pool = pool
        self._settings = settings
        self._announce = announce
        self._wakeups = wakeups
        self._next = _START
        self._asked = 0
        self._hurries = False
        """Whether a worker has died, and the sweep that this asks for is not over."""
        self._again_at: float | None = None
        """When the other sweep begins, which this asks for."""
        wakeups.on_death = self.sweep

    async def close(self) -> None:
        """Ends the sweeps."""
        self._wakeups.on_death = lambda: None
        await super().close()

    def sweep(self) -> None:
        """Begins a sweep now, and makes it as fast as it can be."""
        self._asked += 1
        self._next, self._hurries = _START, True
        self._again_at = time.monotonic() + HEARD_WITHIN
        self.wake()

    async def work_once(self) -> bool:
        """Looks at one page of waiters; returns whether to look at the next one at once."""
        began, schema, asked = time.monotonic(), self._settings.schema, self._asked
        async with self._pool.connection() as connection:
            waiting, stale, following = await waiter.page(connection, schema, self._next)
            if stale:
                await waiter.forget(connection, schema, stale)
            news = await waiter.with_news(connection, schema, waiting)
            news |= await waiter.in_circles(connection, schema, waiting)
            queues = set(await waiter.wake(connection, schema, sorted(news))) if news else set()
        if queues:
            self._announce(map(queue_topic, queues))
        if asked == self._asked:  # else another sweep was asked for meanwhile
            self._next = following or _START
            self._hurries = self._hurries and following is not None
        interval = self._settings.safety_poll
        if following is not None:
            interval = min(interval, (time.monotonic() - began) / _SHARE)
        if self._again_at is not None and not self._hurries:
            left = self._again_at - time.monotonic()
            if left <= 0:
                self._next, self._hurries, self._again_at = _START, True, None
            interval = min(interval, max(left, 0.0))
        self._interval = interval
        return self._hurries
