"""Starts the workflows of schedules, when their times come by the database's clock.

Every executing engine has a scheduler, and nothing coordinates them. A look is one query of some index entries; only if
something is due, a second one reads it, and then one statement for each schedule moves that on and starts workflows:

```text
next_at comes ──► ticks up to now, oldest first ──► by the overlap policy: start · buffer · drop
what ran ends ──► the buffered tick ──────────────►   (one statement, if nobody has changed the schedule since)
```

There is no polling for the moment itself: a timer waits for the next tick that is known. It is set by each look, and a
hint of whoever changes a schedule makes a new look, at most once a second. Beneath it the safety poll finds what a lost
hint, or a changed clock, would have told. A timer that fires early finds nothing due.

Ticks are not lost, and not doubled, by a clock that is put forward and back: a row that was written at a time which has
not come yet is looked at again, and a tick whose workflow is there is none.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.process.service import Service
from dbosflow._runtime.process.wake_timer import WakeTimer
from dbosflow._runtime.schedules.due import candidates_of, due_of
from dbosflow._store import schedule
from dbosflow._store.notify import ALARM_TOPIC, SCHEDULES_TOPIC, queue_topic, workflow_topic
from dbosflow._store.queries import is_refused
from dbosflow.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.schedule import ScheduleRow

logger = logging.getLogger("dbosflow.schedules")

_MOST = 100
"""Schedules that one look reads."""
_BUSY_PAUSE = 0.05
"""Seconds until the next look at a schedule that another statement has."""
_BETWEEN_HINTS = 1.0
"""Seconds between two looks for which there is only a hint: where LISTEN does not work, hints are polls."""
_WITHOUT_RIGHTS = 600.0
"""Seconds until the next try of a role that may not start ticks; its rights were not granted after a migration."""


class Scheduler(Service):
    """The scheduler of one engine."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        schema: str,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
        cancel: Callable[..., Awaitable[object]],
    ) -> None:
        super().__init__("scheduler", interval=None)
        self._pool = pool
        self._schema = schema
        self._wakeups = wakeups
        self._announce = announce
        self._cancel = cancel
        self.now: datetime | None = None
        """The time, for tests; ``None``: the database's."""
        self._unsubscribe = wakeups.subscribe(SCHEDULES_TOPIC, self._may_have_changed)
        self._timer = WakeTimer(self.wake)
        self._looked_at = -math.inf
        self._awaited: dict[str, Callable[[], None]] = {}
        """The workflows for whose end a buffered tick waits, each with what unsubscribes from it."""
        self.has_looked = asyncio.Event()
        """Set once it has started what was due when it was opened."""
        self._refused: dict[str, UUID] = {}
        """The versions of schedules that cannot be served here, which is logged once."""

    async def close(self) -> None:
        """Starts no ticks any more."""
        self._unsubscribe()
        self._await([])
        self._timer.clear()
        await super().close()

    async def work_once(self) -> bool:
        """Starts what is due; returns whether more may be."""
        self._timer.clear()
        self._looked_at = time.monotonic()
        try:
            async with self._pool.connection() as connection:
                seconds, somebody_waits = await schedule.next_due(connection, self._schema, self.now)
                rows = []
                if seconds <= 0 or somebody_waits:
                    rows = await schedule.look(connection, self._schema, self.now, _MOST)
                    random.shuffle(rows)  # with other schedulers at the same work, each begins with something else
                moved = [await self._tried(connection, row) for row in rows]
        except PermissionDeniedError as error:
            logger.error("no schedule is served: %s", error)  # noqa: TRY400 (says what to do)
            self._timer.expect(_WITHOUT_RIGHTS)
            self.has_looked.set()
            return False
        has_asked = await self._cancel_running(rows)
        waits_for_more = self._await(one for row in rows if row.buffered_at is not None for one in row.running)
        self._timer.expect(seconds if seconds > 0 else _BETWEEN_HINTS)
        again = any(moved) or has_asked or waits_for_more
        if not again:
            self.has_looked.set()
        return again

    async def _tried(self, connection: AsyncConnection[Any], row: ScheduleRow) -> bool:
        """Does what a schedule has to do. What is wrong with one must not hold up the others."""
        try:
            return await self._tick(connection, row)
        except Exception as error:
            if isinstance(error, psycopg.Error | PermissionDeniedError) and not is_refused(error):
                raise
            if self._refused.get(row.name) != row.version:
                self._refused[row.name] = row.version
                logger.exception("schedule %r cannot be served in this process", row.name)
        return False

    async def _tick(self, connection: AsyncConnection[Any], row: ScheduleRow) -> bool:
        """Moves one schedule on; whether that was done."""
        due = due_of(row)
        if due.is_nothing_for(row):
            return False
        candidates = candidates_of(row, due)
        started = await schedule.tick(
            connection, self._schema, row, candidates, next_at=due.next_at, left_out=due.left_out
        )
        if started is None:
            self._timer.expect(_BUSY_PAUSE)
            return False
        if due.left_out:
            logger.warning("schedule %r: %d tick(s) came longer ago than its catch_up", row.name, due.left_out)
        if started.ids:
            topics = [queue_topic(started.queue), *map(workflow_topic, started.ids)]
            self._announce([*topics, ALARM_TOPIC] if row.definition.jitter else topics)
        return True

    async def _cancel_running(self, rows: Iterable[ScheduleRow]) -> bool:
        """Asks what runs to end for a tick that waits; whether it did. Whoever looks finds it, until it is asked."""
        has_asked = False
        for row in rows:
            if row.definition.overlap == "cancel_running" and row.buffered_at is not None and row.unasked:
                await self._cancel(row.unasked, reason=f"the next tick of schedule {row.name!r} has come")
                has_asked = True
        return has_asked

    # -- when to look ------------------------------------------------------------------------------------------------

    def _await(self, ids: Iterable[str]) -> bool:
        """Looks again as soon as one of these workflows, and of no others, has ended.

        Whether one is new: that may have ended since the look, so another one is to follow.
        """
        wanted, known = set(ids), set(self._awaited)
        for one in self._awaited.keys() - wanted:
            self._awaited.pop(one)()
        for one in wanted - self._awaited.keys():
            self._awaited[one] = self._wakeups.subscribe(workflow_topic(one), self.wake)
        return not wanted <= known

    def _may_have_changed(self) -> None:
        self._timer.expect(max(self._looked_at + _BETWEEN_HINTS - time.monotonic(), 0))
