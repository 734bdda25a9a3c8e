"""Schedulers of one database, with a clock that the test sets; and workflows that end when the test says so."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from dbosflow._runtime.repository import Repository
from dbosflow._runtime.schedules.requests import ScheduleRequests
from dbosflow._runtime.schedules.scheduler import Scheduler
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._store import workflow
from dbosflow.config import Settings
from dbosflow.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from dbosflow.types import ScheduleInfo

START = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class World:
    """What a test of schedules acts with."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self.pool = pool
        self.wakeups = Wakeups()
        self.announced: list[str] = []
        self.requests = ScheduleRequests(Repository(pool, Settings()), self.announced.extend)
        self.now = START
        self.schedulers = [self.scheduler()]

    def scheduler(self) -> Scheduler:
        """One more scheduler, which works when the test says so."""
        return Scheduler(self.pool, "dbosflow", self.wakeups, self.announced.extend, self._cancel)

    async def _cancel(self, ids: Sequence[str], *, reason: str) -> None:
        async with self.pool.connection() as connection:
            await workflow.cancel_many(connection, "dbosflow", ids, children=True, reason=reason)

    async def close(self) -> None:
        """Closes what is open."""
        for one in self.schedulers:
            await one.close()

    # -- what the test does ------------------------------------------------------------------------------------------

    def set_clock(self, now: datetime) -> None:
        """For all."""
        self.now = self.requests.now = now

    async def apply(self, name: str = "s", **options: Any) -> ScheduleInfo:
        """A schedule of a workflow that nobody has here: each minute, if the test says nothing else."""
        self.set_clock(self.now)
        if "cron" not in options:
            options = {"every": 60, **options}
        return await self.requests.apply(Schedule(name, "flow_of_no_function", **options).definition)

    async def at(self, now: datetime, *, scheduler: Scheduler | None = None) -> None:
        """The clock is set, and a scheduler does what there is to do."""
        self.set_clock(now)
        scheduler = scheduler or self.schedulers[0]
        scheduler.now = now
        for _ in range(100):
            if not await scheduler.work_once():
                return
        message = "a scheduler that always has more to do"
        raise AssertionError(message)

    async def end(self, workflow_id: str) -> None:
        """A workflow ends."""
        await self.rows(
            "UPDATE dbosflow.workflow SET status = 'succeeded', ended_at = now() WHERE id = %s", workflow_id
        )

    # -- what the test sees ------------------------------------------------------------------------------------------

    async def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a statement."""
        async with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement.encode(), values)
            return [] if cursor.description is None else await cursor.fetchall()

    async def started(self, name: str = "s") -> list[str]:
        """The times of the ticks whose workflows were started, without the day if that is the first one."""
        found = await self.rows("SELECT id FROM dbosflow.workflow WHERE starts_with(id, %s) ORDER BY id", f"{name}@")
        return [row["id"].partition("@")[2].removeprefix("2026-06-01T").removesuffix("Z") for row in found]

    async def info(self, name: str = "s") -> ScheduleInfo:
        """The schedule's record."""
        return await self.requests.get(name)


@asynccontextmanager
async def world_on(url: str) -> AsyncIterator[World]:
    """A world on a database."""
    async with AsyncConnectionPool(url, min_size=1, max_size=8, open=False, kwargs={"autocommit": True}) as pool:
        world = World(pool)
        try:
            yield world
        finally:
            await world.close()


def minutes(*numbers: int) -> list[str]:
    """The times of the ticks so many minutes after the start."""
    return [f"{START + number * MINUTE:%H:%M:%S}" for number in numbers]


def ids(times: Iterable[str], name: str = "s") -> list[str]:
    """The ids of the workflows of ticks of the first day."""
    return [f"{name}@2026-06-01T{time}Z" for time in times]
