"""Brings the schedules that code declares into the database, and pauses those that code declares no longer.

Workers of two versions of the code run side by side while one is deployed. Each says in its row of ``worker`` what its
code declares, and each decides by the same facts which version of a schedule counts:

```text
the newest is the one that was first seen last, among those that live workers declare
    a new one is deployed    the first worker that has it brings it in; those of the old code leave it
    it is rolled back        once the last worker of the new code is gone, those of the old code bring theirs in again
    it is taken out of code  once no worker declares it any more, one that has loaded its module pauses it
```

So the order in which workers start, and start again, does not matter, and nobody numbers versions. A worker that serves
other modules says nothing about a schedule. Who is live is told by the leases.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._runtime.process.wake_timer import WakeTimer
from dbosflow._store import schedule
from dbosflow._store.notify import SCHEDULES_TOPIC, WORKERS_TOPIC
from dbosflow.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.schedule import ScheduleRow
    from dbosflow.schedule_definitions import Declared, DeclaredSchedules

logger = logging.getLogger("dbosflow.schedules")

_EVERY = 60.0
"""Seconds between two looks without a hint."""
_BETWEEN_HINTS = 5.0
"""Seconds between two looks for hints: workers come and go many at a time."""


class Declarations(Service):
    """The declarations of one engine's code."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        schema: str,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
        declared: DeclaredSchedules,
    ) -> None:
        super().__init__("declarations", interval=_EVERY)
        self._pool = pool
        self._schema = schema
        self._announce = announce
        self._declared = declared
        self._timer = WakeTimer(self.wake)
        self._looked_at = -math.inf
        self._unsubscribe = wakeups.subscribe(WORKERS_TOPIC, self._may_have_changed)
        self._taken: set[str] = set()
        """Names that are taken by schedules that were applied, which is logged once."""

    async def close(self) -> None:
        """Ends the looks."""
        self._unsubscribe()
        self._timer.clear()
        await super().close()

    def _may_have_changed(self) -> None:
        self._timer.expect(max(self._looked_at + _BETWEEN_HINTS - time.monotonic(), 0))

    async def work_once(self) -> bool:
        """Brings in what is newest, and pauses what is gone."""
        self._timer.clear()
        self._looked_at = time.monotonic()
        mine = self._declared.all()
        try:
            async with self._pool.connection() as connection:
                rows = await schedule.of_code(connection, self._schema, list(mine))
                others = await schedule.declared(connection, self._schema)
                found = {row.name: row for row in rows}
                changed = [
                    await self._bring_in(connection, name, one)
                    for name, one in mine.items()
                    if self._counts(found.get(name), one, others)
                ]
                changed += [await self._pause_gone(connection, row) for row in rows if self._is_gone(row, mine, others)]
        except PermissionDeniedError as error:
            logger.error("schedules in code are not brought in: %s", error)  # noqa: TRY400 (says what to do)
            return False
        if any(changed):
            self._announce([SCHEDULES_TOPIC])
        return False

    def _counts(self, row: ScheduleRow | None, mine: Declared, others: Sequence[Mapping[str, str]]) -> bool:
        """Whether the schedule in the database is to be replaced by this code's."""
        if row is None:
            return True
        if row.module is None:
            if row.name not in self._taken:
                self._taken.add(row.name)
                logger.error(
                    "schedule %r was applied by a call, so the one in %s does not count; delete the other first",
                    *(row.name, mine.module),
                )
            return False
        fingerprint = mine.definition.fingerprint
        if row.fingerprint == fingerprint:
            return row.paused_because == "gone"
        order = {one: place for place, one in enumerate(row.fingerprints)}
        newest = max((order.get(one[row.name], math.inf) for one in others if row.name in one), default=-1)
        return fingerprint not in order or newest <= order[fingerprint]

    def _is_gone(self, row: ScheduleRow, mine: Mapping[str, Declared], others: Sequence[Mapping[str, str]]) -> bool:
        """Whether the code of a schedule is loaded here, and neither this code nor that of others declares it."""
        return (
            not row.paused
            and row.module in sys.modules
            and row.module != "__main__"
            and row.name not in mine
            and not any(row.name in one for one in others)
        )

    async def _bring_in(self, connection: AsyncConnection[Any], name: str, mine: Declared) -> bool:
        definition = mine.definition
        async with connection.transaction():
            if await schedule.add(
                *(connection, self._schema, definition, mine.module), await schedule.clock(connection, self._schema)
            ):
                logger.info("schedule %r is new", name)
                return True
            row = await schedule.lock(connection, self._schema, name)
            others = await schedule.declared(connection, self._schema)
            if row is None or not self._counts(row, mine, others):
                return False
            await schedule.change(connection, self._schema, row, definition, mine.module)
        logger.info("schedule %r was replaced by that of this code", name)
        return True

    async def _pause_gone(self, connection: AsyncConnection[Any], seen: ScheduleRow) -> bool:
        async with connection.transaction():
            row = await schedule.lock(connection, self._schema, seen.name)
            if row is None or row.version != seen.version:
                return False
            await schedule.pause(connection, self._schema, row, "gone")
        logger.warning(
            "schedule %r is paused: %s declares it no longer; delete it, if that is meant", row.name, row.module
        )
        return True
