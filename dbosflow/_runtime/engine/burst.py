"""When a worker has done all that it can do: ``run_worker(burst=True)`` ends then.

```text
nothing runs here ─► nobody is being woken ─► nothing is left in the tables ─► nothing ran meanwhile ─► done
       ▲                                                      │
       └────────── a run is over · a claimer found nothing ◄──┘
```

What only waits leaves memory after a second, as where others wait for its slot: a burst does not wait for it. Nor does
it wait for what other workers run. What it waits for is what it could run itself: ``left`` in ``waiting.sql`` says so.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._records.pins import queue_of
from dbosflow._runtime.process.service import is_final
from dbosflow._store import waiting
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine
    from uuid import UUID

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.execution.runner import Runner
    from dbosflow._runtime.execution.suspender import Suspender
    from dbosflow._runtime.schedules.scheduler import Scheduler
    from dbosflow._runtime.wakeups.waker import Waker
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.burst")

_AT_WORK = 0.01
"""Seconds until the next look while the waker, or the suspender, is at work: a statement or two."""


class Burst:
    """One wait until nothing is left."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        settings: Settings,
        *,
        runner: Runner,
        suspender: Suspender | None,
        names: Callable[[], list[str]],
        queues: Collection[str],
        worker_id: Callable[[], UUID],
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._runner = runner
        self._suspender = suspender
        self._names = names
        self._queues = {one: queue_of(one) for one in queues}
        """The queues as they are stored, each with its name in its user's words."""
        self._worker_id = worker_id
        self._changed = asyncio.Event()
        self._runs_over = 0

    def look(self) -> None:
        """Something has changed."""
        self._changed.set()

    def _run_is_over(self) -> None:
        self._runs_over += 1
        self._changed.set()

    async def over(self, waker: Waker, scheduler: Scheduler, refused: Callable[[], Collection[str]]) -> None:
        """Waits until nothing is left. ``refused`` are workflows whose starts the database does not take."""
        self._runner.suspended.when_over = self._run_is_over
        with nullcontext() if self._suspender is None else self._suspender.hurrying():
            await scheduler.has_looked.wait()  # ticks that have come are there now
            await self._until_nothing_is_left(waker, refused)

    async def _until_nothing_is_left(self, waker: Waker, refused: Callable[[], Collection[str]]) -> None:
        while True:
            self._changed.clear()
            over = self._runs_over
            if self._is_at_work(waker):
                pause = _AT_WORK if not len(self._runner) else self._settings.safety_poll
            elif await self._is_left(refused()) or self._is_at_work(waker) or over != self._runs_over:
                pause = self._settings.safety_poll
            else:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _is_at_work(self, waker: Waker) -> bool:
        is_settled = self._suspender is None or self._suspender.is_settled
        return bool(self._runner.known()) or not waker.is_idle or not is_settled

    async def _is_left(self, refused: Collection[str]) -> bool:
        """Whether anything is left; as long as the database does not answer, something may be."""
        try:
            async with self._pool.connection() as connection:
                return await waiting.is_left(
                    connection,
                    self._settings.schema,
                    queues=self._queues,
                    names=self._names(),
                    worker_id=self._worker_id(),
                    refused=refused,
                )
        except (psycopg.Error, DbosflowError, OSError) as error:
            if is_final(error):
                raise
            logger.warning("whether anything is left is asked again a little later: %s", error)
            return True


async def first_of(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Waits until one of them has ended, and cancels the others."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
