"""What is asked of schedules from outside: each a short transaction that locks one row."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.schedules.due import MOST, input_of, tick_id
from dbosflow._store import schedule
from dbosflow._store.notify import SCHEDULES_TOPIC, queue_topic
from dbosflow.errors import ConfigurationError, ScheduleNotFoundError
from dbosflow.types import Tick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from psycopg import AsyncConnection

    from dbosflow._runtime.repository import Repository
    from dbosflow._store.schedule import ScheduleRow, Started
    from dbosflow.schedule_definitions import ScheduleDef
    from dbosflow.types import ScheduleInfo

_INSTANT = timedelta(microseconds=1)


class ScheduleRequests:
    """The requests of one engine. A request that is sent again, since its answer was lost, changes nothing more."""

    def __init__(self, repository: Repository, announce: Callable[[Iterable[str]], None]) -> None:
        self._repository = repository
        self._announce = announce
        self.now: datetime | None = None
        """The time, for tests; ``None``: the database's."""

    async def apply(self, definition: ScheduleDef) -> ScheduleInfo:
        """Adds a schedule, or replaces the one of its name."""
        await self._ask(self._apply, definition)
        return await self.get(definition.name)

    async def all(self) -> list[ScheduleInfo]:
        """All schedules, sorted by name."""
        return await self._repository.ask(schedule.list_schedules)

    async def get(self, name: str) -> ScheduleInfo:
        """The schedule of that name."""
        found = await self._repository.ask(schedule.list_schedules, name)
        if not found:
            raise _not_found(name)
        return found[0]

    async def pause(self, name: str) -> ScheduleInfo:
        """Lets no tick start anything."""
        await self._ask(self._pause, name)
        return await self.get(name)

    async def resume(self, name: str) -> ScheduleInfo:
        """Lets a schedule go on with the first tick from now on."""
        await self._ask(self._resume, name)
        return await self.get(name)

    async def delete(self, name: str) -> None:
        """Deletes a schedule, and none of its workflows."""
        await self._ask(self._delete, name)

    async def trigger(self, name: str, workflow_id: str) -> None:
        """Starts the workflow of a schedule now, under this id."""
        self._tell(await self._ask(self._trigger, name, workflow_id))

    async def backfill(self, name: str, begin: datetime, end: datetime | None, limit: int) -> int:
        """Starts the workflows of the ticks from ``begin`` to before ``end``, but for those that are there."""
        ats = await self._repository.ask(partial(self._ticks_between, begin=begin, end=end, limit=limit), name)
        count = 0
        for place in range(0, len(ats), MOST):
            started = await self._ask(self._backfill, name, ats[place : place + MOST])
            self._tell(started)
            count += len(started.ids)
        return count

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _ask(self, request: Callable[..., Any], *values: object) -> Any:
        found = await self._repository.ask(request, *values)
        self._announce([SCHEDULES_TOPIC])
        return found

    def _tell(self, started: Started) -> None:
        if started.ids:
            self._announce([queue_topic(started.queue)])

    async def _locked(self, connection: AsyncConnection[Any], schema: str, name: str) -> ScheduleRow:
        row = await schedule.lock(connection, schema, name, self.now)
        if row is None:
            raise _not_found(name)
        return row

    async def _apply(self, connection: AsyncConnection[Any], schema: str, definition: ScheduleDef) -> None:
        async with connection.transaction():
            now = await schedule.clock(connection, schema, self.now)
            if await schedule.add(connection, schema, definition, None, now):
                return
            row = await self._locked(connection, schema, definition.name)
            if row.module is not None:
                msg = (
                    f"schedule {row.name!r} is declared in {row.module}: change it there, or take another "
                    "name. One that is declared no longer can be deleted"
                )
                raise ConfigurationError(msg)
            if row.fingerprint != definition.fingerprint:
                await schedule.change(connection, schema, row, definition, None)

    async def _pause(self, connection: AsyncConnection[Any], schema: str, name: str) -> None:
        async with connection.transaction():
            await schedule.pause(connection, schema, await self._locked(connection, schema, name), "request")

    async def _resume(self, connection: AsyncConnection[Any], schema: str, name: str) -> None:
        async with connection.transaction():
            row = await self._locked(connection, schema, name)
            if row.paused:
                await schedule.resume(connection, schema, row)

    async def _delete(self, connection: AsyncConnection[Any], schema: str, name: str) -> None:
        async with connection.transaction():
            row = await self._locked(connection, schema, name)
            if row.module is not None and any(name in one for one in await schedule.declared(connection, schema)):
                msg = (
                    f"schedule {name!r} is declared in {row.module}, whose workers would bring it in again: "
                    "take it out of the code, or pause it"
                )
                raise ConfigurationError(msg)
            await schedule.delete(connection, schema, name)

    async def _trigger(self, connection: AsyncConnection[Any], schema: str, name: str, workflow_id: str) -> Started:
        async with connection.transaction():
            row = await self._locked(connection, schema, name)
            text = input_of(row.definition, Tick(name, row.now, row.last_at, by="trigger"))
            return await schedule.start(connection, schema, row, [workflow_id], [text], counted=True)

    async def _ticks_between(
        self,
        connection: AsyncConnection[Any],
        schema: str,
        name: str,
        *,
        begin: datetime,
        end: datetime | None,
        limit: int,
    ) -> list[datetime]:
        async with connection.transaction():
            row = await self._locked(connection, schema, name)
        end = row.now if end is None else min(end, row.now)
        found: list[datetime] = []
        at = row.definition.ticks.after(begin - _INSTANT)
        while at is not None and at < end:
            if len(found) == limit:
                msg = (
                    f"schedule {name!r} has more than {limit} ticks from {begin.isoformat()} to {end.isoformat()}: "
                    "take a shorter time, or a higher limit"
                )
                raise ConfigurationError(msg)
            found.append(at)
            at = row.definition.ticks.after(at)
        return found

    async def _backfill(self, connection: AsyncConnection[Any], schema: str, name: str, ats: list[datetime]) -> Started:
        async with connection.transaction():
            row = await self._locked(connection, schema, name)
            ids = [tick_id(name, at) for at in ats]
            inputs = [input_of(row.definition, Tick(name, at, by="backfill")) for at in ats]
            return await schedule.start(connection, schema, row, ids, inputs, counted=False)


def _not_found(name: str) -> ScheduleNotFoundError:
    return ScheduleNotFoundError(name, f"there is no schedule {name!r}")
