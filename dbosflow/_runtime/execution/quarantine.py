"""Finds the runs that may be killing their workers, and runs such a suspect alone, so that a death accuses one run.

A worker that dies takes all its runs along, and there is no evidence which of them caused it (a segmentation fault, the
OOM killer). So a death counts against every run that has not got further since its claim: no new record, and no stream
value of its body; values of a step are no evidence, since the next attempt writes them again. From the third such death
in a row on, the run is a *suspect*:

```text
queued ──claim──► running ──worker dies──► queued, recoveries + 1     (got further: recoveries = 1)
                                             │ recoveries >= SUSPECTED
                                             ▼
           a suspect: claimed only by a worker that has none in quarantine, and alone
             ├── gets further, or only waits ──► acquitted: recoveries = 0
             ├── ends
             ├── neither within its time ──► out of quarantine, not acquitted: others run beside it, no suspect yet
             └── its worker dies ──► recoveries + 1, and of no other suspect; ``max_recoveries`` of them park it
```

A worker with a run in quarantine claims nothing else, in no queue; the runs that it had before go on. Its row names the
suspect, so the reclaimer that finds the worker dead knows which run to accuse: the counts of other suspects stay. A run
that is no suspect and got no further may become one by that death: it may have been the killer, claimed just before
from another queue. Of several suspects the one with the fewest deaths goes first, so that innocent ones share what one
guilty run costs them.

What a run waits for durably (a sleep, another workflow, a value of a stream) cannot kill its worker, and is not on
record until it comes. So the owner checks, of suspects only, whether all code of the run waits so, and for a moment.

How long the other workflows wait: until the suspect does one of these, at most ``lease`` seconds for each death but two
(with a lease of 10 s: 10 s for the first, 60 s at most). A run that kills at once delays them by its deaths only: of
ten deaths it is alone in seven.

A run that kills later than that is out of quarantine by then. If another suspect were in quarantine at that time, the
death would accuse the other one, again and again, and the guilty run never. So until the first one's longest time (60
s) is over, its worker claims no other suspect: then the death counts against all, and the next quarantine takes longer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg_pool import AsyncConnectionPool

from dbosflow._runtime.replay.stalls import Awaited, awaited_by
from dbosflow._store import worker
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._store.workflow import Claimed
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.quarantine")

SUSPECTED = 3
"""Deaths in a row that make a suspect. The claim and its index have the same number."""
_LONGEST = 6
"""The most leases that a quarantine takes."""
_GLANCE = 0.05
"""Seconds between two looks at a suspect: there are two within the time for which it must be calm."""
_CALM = 0.1
_ROUND_TRIPS = 5
"""A run must be seen waiting for so many seconds, and for as long as so many round trips take: a run that reads a
stream waits for each page, too, however far the database is."""
_RETRY = 0.5
"""Seconds between two tries to end a quarantine while the database is away; the place stays taken meanwhile."""


class Quarantine:
    """The place for one suspect of a worker."""

    def __init__(self, pool: AsyncConnectionPool[Any], settings: Settings, lease: WorkerLease) -> None:
        self._pool = pool
        self._settings = settings
        self._lease = lease
        self._task: asyncio.Task[None] | None = None
        """The task that watches the suspect in quarantine."""
        self._next: deque[tuple[Claimed, Run | None]] = deque()
        """Suspects that the worker has got otherwise than by a claim: they take their turns."""
        self._lingering: set[asyncio.Task[None]] = set()
        """The tasks that watch suspects which are out of quarantine and not acquitted."""
        self._callbacks: tuple[Callable[[], None], ...] = ()

    @property
    def is_taken(self) -> bool:
        """Whether the worker may claim nothing else."""
        return self._task is not None

    @property
    def takes_suspects(self) -> bool:
        """Whether the worker may claim a suspect: none of its runs may be mistaken for that suspect."""
        return self._task is None and not self._lingering

    def when_free(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls ``callback`` each time the worker may claim again; the returned function ends that."""
        self._callbacks = (*self._callbacks, callback)

        def leave() -> None:
            self._callbacks = tuple(other for other in self._callbacks if other is not callback)

        return leave

    def enter(self, got: Iterable[Claimed], find: Callable[[str], Run | None]) -> None:
        """Takes the suspects among ``got``, whose runs are launched by now, and watches each from here on."""
        for one in got:
            if one.recoveries >= SUSPECTED:
                logger.warning(
                    "workflow %s: %d workers in a row have died with it, and it got no further; it is run alone",
                    *(one.id, one.recoveries),
                )
                self._next.append((one, find(one.id)))
        self._take_next()

    def _take_next(self) -> None:
        if self._task is None and self._next:
            suspect, run = self._next.popleft()
            self._task = asyncio.get_running_loop().create_task(
                self._keep(suspect.id, run, suspect.recoveries), name=f"dbosflow-quarantine-{suspect.id}"
            )

    async def close(self) -> None:
        """Ends the watching."""
        tasks = {*self._lingering, *(() if self._task is None else (self._task,))}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, workflow_id: str, run: Run | None, recoveries: int) -> None:
        loop, lease = asyncio.get_running_loop(), self._settings.lease
        began = loop.time()
        acquitted = await self._is_acquitted(run, began + lease * min(recoveries - SUSPECTED + 1, _LONGEST))
        await self._end(workflow_id, acquitted=acquitted)
        self._task = None
        if not acquitted and run is not None and not run.is_over:
            lingering = self._linger(workflow_id, run, began + lease * _LONGEST)
            self._lingering.add(loop.create_task(lingering, name=f"dbosflow-quarantine-{workflow_id}"))
        self._take_next()
        self._tell()

    async def _linger(self, workflow_id: str, run: Run, until: float) -> None:
        """Watches a run that is out of quarantine, and still a suspect."""
        if await self._is_acquitted(run, until):
            await self._end(workflow_id, acquitted=True)
        self._lingering.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        self._tell()

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()

    async def _end(self, workflow_id: str, *, acquitted: bool) -> None:
        worker_id = self._lease.id
        while self._lease.id == worker_id:
            try:
                async with self._pool.connection() as connection:
                    await worker.end_quarantine(
                        connection, self._settings.schema, worker_id, workflow_id, acquitted=acquitted
                    )
                break
            except (psycopg.Error, DbosflowError, OSError) as error:
                logger.warning("workflow %s stays in quarantine for a moment: %s", workflow_id, error)
                await asyncio.sleep(_RETRY * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
        logger.info("workflow %s is out of quarantine: %s", workflow_id, "acquitted" if acquitted else "not acquitted")

    async def _is_acquitted(self, run: Run | None, until: float) -> bool:
        """Whether the run gets further, or only waits, before the run or the time is over."""
        if run is None:
            return False
        try:
            return await self._is_innocent(run, until)
        except Exception:  # an awaitable of the user's may raise anything
            logger.exception("workflow %s could not be looked at", run.workflow_id)
            return False

    async def _is_innocent(self, run: Run, until: float) -> bool:
        loop, seq = asyncio.get_running_loop(), run.history.next_place[0]
        resumptions, calm_since, calm = -1, 0.0, math.inf
        while not run.is_over and loop.time() < until:
            if run.seq > seq or (_own_values(run) and not run.buffer.size):
                return True
            if not only_waits(run):
                resumptions = -1
            elif run.resumptions != resumptions:
                resumptions, calm_since, calm = run.resumptions, loop.time(), math.inf
            elif calm == math.inf:
                calm = max(_CALM, _ROUND_TRIPS * await self._round_trip())
            elif loop.time() - calm_since >= calm:
                return True
            await asyncio.sleep(_GLANCE)
        return False

    async def _round_trip(self) -> float:
        """The time of a round trip to the database, in seconds; infinite if the database does not answer."""
        began = time.monotonic()
        try:
            async with self._pool.connection() as connection:
                await AsyncConnectionPool.check_connection(connection)
        except (psycopg.Error, DbosflowError, OSError):
            return math.inf
        return time.monotonic() - began


def _own_values(run: Run) -> int:
    """How many values the run's own code has written that no earlier run wrote."""
    return 0 if run.written_streams is None else run.written_streams.new_values_of_body()


def only_waits(run: Run) -> bool:
    """Whether the run's code does nothing: each branch waits durably, or for a branch that does."""
    if run.stopping is not None or run.bodies or run.buffer.size or run.is_replaying or not run.waits:
        return False
    if not run.definition.is_async:
        return run.root.owner is not None and run.root.owner.operating
    coroutines = run.coroutines
    return sum(coroutine.operating for coroutine in coroutines) == len(run.waits) and all(
        coroutine.operating or (coroutine.waits and awaited_by(coroutine)[0] is not Awaited.OUTSIDE)
        for coroutine in coroutines
    )
