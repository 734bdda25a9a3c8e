"""Carries out what only the clock brings, by the database's clock: deadlines, and the times that workflows wait for.

Every executing engine has an alarm, and each looks for all workflows; nothing coordinates them. A look is one query of
an index; only if something is due does a statement follow, which requests the end of the workflows as ``cancel`` does:

```text
deadline passes ──► requested ─notify─► delivered by the owner, or by the next one ──► ended: failed
                        └── never ran: failed in the same statement
wake_at comes ────► queued: a suspended workflow, or a scheduled one, whatever its name and queue
```

There is no polling for the moment itself: a timer waits for the next moment that is known. It is set by each look, by
each run of this engine that begins or is suspended, and by the hint of another process whose workflow has a deadline
that comes before the next safety poll. That poll finds what a lost hint would have told. A timer that fires early,
since the clocks differ, finds nothing due and waits for the rest. So no deadline passes early, and none is missed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.process.service import Service
from dbosflow._runtime.process.wake_timer import WakeTimer
from dbosflow._store import waiter, workflow
from dbosflow._store.notify import ALARM_TOPIC, CANCEL_TOPIC, queue_topic, workflow_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups

logger = logging.getLogger("dbosflow.alarm")

_MOST = 500
"""Workflows in one statement, which holds their rows."""
_BUSY_PAUSE = 0.05
"""Seconds until the next look at rows that other statements hold."""


class Alarm(Service):
    """The alarm of one engine."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        schema: str,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        super().__init__("alarm", interval=None)
        self._pool = pool
        self._schema = schema
        self._announce = announce
        self._unsubscribe = wakeups.subscribe(ALARM_TOPIC, self.wake)
        self._timer = WakeTimer(self.wake)
        self.expect = self._timer.expect
        """Makes it look again in so many seconds, or before."""

    async def close(self) -> None:
        """Ends the looks."""
        self._unsubscribe()
        self._timer.clear()
        await super().close()

    async def work_once(self) -> bool:
        """Does what is due; returns whether more may be."""
        self._timer.clear()
        async with self._pool.connection() as connection:
            more = await self._expire(connection)
            return await self._wake_due(connection) or more

    async def _expire(self, connection: AsyncConnection[Any]) -> bool:
        """Requests the end of workflows whose deadline has passed."""
        if not self._is_due(await workflow.next_due(connection, self._schema)):
            return False
        try:
            expired = await workflow.expire(connection, self._schema, limit=_MOST)
        except psycopg.errors.UniqueViolation:  # an input was written in that instant: again, with what is there
            return True
        if not expired:  # other statements hold the rows: a claim, an end, or the alarm of another engine
            self.expect(_BUSY_PAUSE)
            return False
        logger.info("the deadline of %d workflow(s) has passed", len(expired))
        waking = [topic for row in expired for topic in (workflow_topic(row["id"]), queue_topic(row["queue"]))]
        self._announce([CANCEL_TOPIC, *waking])
        return True

    async def _wake_due(self, connection: AsyncConnection[Any]) -> bool:
        """Queues workflows that have waited for a time, which has come."""
        if not self._is_due(await waiter.next_due(connection, self._schema)):
            return False
        queues = await waiter.wake_due(connection, self._schema)
        if not queues:  # as above
            self.expect(_BUSY_PAUSE)
            return False
        self._announce(map(queue_topic, set(queues)))
        return True

    def _is_due(self, seconds: float | None) -> bool:
        """Whether a time has come; if not, the alarm expects it."""
        if seconds is None or seconds <= 0:
            return seconds is not None
        self.expect(seconds)
        return False
