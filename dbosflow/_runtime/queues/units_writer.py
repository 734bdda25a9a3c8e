"""Corrects the rates of queues by what workflows have really used: many calls in one statement, beside the journal.

It has a connection of its own. A batch of the journal would wait there for whoever claims from the queue: see
``used_units.sql``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service, is_final, set_closed, set_errors
from dbosflow._store import used_units
from dbosflow._store.notify import limits_topic
from dbosflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.used_units import UsedUnits

_MOST = 500
"""Calls in one statement."""

Pending = dict[tuple[str, str], tuple["UsedUnits", list[asyncio.Future[None]]]]


class UnitsWriter(Service):
    """The group commit of corrections."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str, announce: Callable[[Iterable[str]], None]) -> None:
        super().__init__("units", interval=None)
        self._pool = pool
        self._schema = schema
        self._announce = announce
        self._pending: Pending = {}

    async def use(self, used: UsedUnits) -> None:
        """Makes a call count; returns once that is durable."""
        self.check_open()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.setdefault((used.workflow_id, used.key), (used, []))[1].append(future)
        self.wake()
        await future

    async def close(self) -> None:
        """Ends the corrections; a waiting caller gets an error, since its call is not known to be durable."""
        await super().close()
        set_closed(future for _, futures in self._pending.values() for future in futures)

    async def work_once(self) -> bool:
        """Makes pending calls count. A failed statement is sent again, since a repeated call does not count again."""
        taken = dict(list(self._pending.items())[:_MOST])
        if not taken:
            return False
        await self._write(taken)
        return bool(self._pending)

    async def _write(self, taken: Pending) -> None:
        try:
            async with self._pool.connection() as connection:
                queues = await used_units.use(connection, self._schema, [used for used, _ in taken.values()])
        except Exception as error:
            if not is_final(error):
                raise
            if len(taken) > 1:
                for place, one in taken.items():
                    await self._write({place: one})
                return
            futures = self._done(taken)
            set_errors(futures, error, SerializationError(f"the database refused the number of units: {error}"))
            return
        self._announce([limits_topic(name) for name in queues])
        for future in self._done(taken):
            if not future.done():
                future.set_result(None)

    def _done(self, taken: Pending) -> list[asyncio.Future[None]]:
        """What waits for these calls, which are not pending any more."""
        return [future for place in taken for future in self._pending.pop(place)[1]]
