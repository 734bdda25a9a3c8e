"""Wakes suspended workflows, of any process, when this process has brought what they wait for.

A hint that wakes readers in memory also concerns readers that are suspended: their rows are found by its topic. That is
one statement for all topics that have gathered, after the hints are on their way, and on a connection of its own. As
long as nobody waits, nothing is sent: a process hears when the first workflow is suspended, and looks now and then
whether any is left. A wake-up that is lost is found by the sweeper.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._runtime.process.session import Session
from dbosflow._sessions import NOTIFIER, POOL
from dbosflow._store import waiter
from dbosflow._store.notify import WAITERS_TOPIC, queue_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow.config import Settings

HEARD_WITHIN = 1.0
"""Seconds within which every process has heard that somebody waits, or that a worker has died."""
_LOOK_EVERY = 5.0
"""Seconds for which it is believed that somebody waits, once that was so."""
_PAUSE = 0.005
"""Seconds between two statements: under load the topics of many commits share one."""
_BUSY_PAUSE = 0.05
"""Seconds until the next look at rows that other statements hold."""


class Waker(Service):
    """The wake-ups that one process sends."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        url: str,
        settings: Settings,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        super().__init__("waker", interval=None)
        self._pool = pool
        self._session = Session(url, settings, {**POOL, **NOTIFIER}, pool)
        self._schema = settings.schema
        self._announce = announce
        self._topics: dict[str, None] = {}
        self._somebody_waits = True
        self._looked_at = -math.inf
        self._heard = 1
        """Counts the reasons to believe that somebody waits."""
        self._is_waking = False
        self._looked = 0
        """``_heard`` at the last look whether that is so."""
        self._unsubscribe = wakeups.subscribe(WAITERS_TOPIC, self._somebody_may_wait)

    async def close(self) -> None:
        """Wakes nobody any more, and disconnects."""
        self._unsubscribe()
        await super().close()
        await self._session.close()

    def news(self, topics: Iterable[str]) -> None:
        """Wakes who waits for these topics, soon; what they are about is durable."""
        if self._somebody_waits:
            self._topics.update((topic, None) for topic in topics if topic[:1] in {"s", "w"})
            if self._topics:
                self.wake()

    @property
    def is_idle(self) -> bool:
        """Whether it has woken whom it could wake."""
        return not (self._topics or self._is_waking)

    def _somebody_may_wait(self) -> None:
        """Somebody waits; or hints may have been lost, and so may this one. A look under way may not show it."""
        is_known = self._somebody_waits and self._looked == self._heard
        if is_known and time.monotonic() - self._looked_at < _LOOK_EVERY:
            return
        self._heard += 1
        self._somebody_waits = True
        self.wake()

    async def work_once(self) -> bool:
        """Wakes who waits for the topics that have gathered."""
        if self._looked != self._heard:
            heard, self._looked_at = self._heard, time.monotonic()
            async with self._pool.connection() as connection:
                waits = await waiter.somebody_waits(connection, self._schema)
            self._looked = heard
            if heard == self._heard:
                self._somebody_waits = waits
        topics, self._topics = self._topics, {}
        if topics and self._somebody_waits:
            self._is_waking = True
            try:
                await self._wake(list(topics))
            except BaseException:
                self._topics = topics | self._topics
                raise
            finally:
                self._is_waking = False
            await asyncio.sleep(_PAUSE)
        return bool(self._topics) or self._looked != self._heard

    async def _wake(self, topics: list[str]) -> None:
        is_left = True
        while is_left:
            async with self._session.turn() as connection:
                queues, is_left = await waiter.wake_by_topic(connection, self._schema, topics)
            if queues:
                self._announce(map(queue_topic, set(queues)))
            elif is_left:  # others hold the rows: an unpinning, or another waker
                self._topics = dict.fromkeys(topics) | self._topics
                await asyncio.sleep(_BUSY_PAUSE)
                return
