"""Which runs are suspected of killing their workers, and how a suspect is run: alone, so that a death accuses one.

A worker that dies takes all its runs along, and nobody sees which of them did it (a segmentation fault, the OOM
killer). So a death counts against every run that has not got further since its claim: no new record, and no stream
value of its body; what a step had written is no sign, since the next attempt writes it again. From the third such death
in a row on the run is a *suspect*:

```text
queued ──claim──► running ──worker dies──► queued, recoveries + 1     (got further: recoveries = 1)
                                             │ recoveries >= SUSPECTED
                                             ▼
           a suspect: claimed only by a worker that has none in quarantine, and alone
             ├── gets further, or only waits ──► acquitted: recoveries = 0
             ├── ends
             ├── neither within its time ──► out of quarantine, not acquitted: as every other run
             └── its worker dies ──► recoveries + 1, and of this run only; ``max_recoveries`` of them park it
```

A worker with a run in quarantine claims nothing else, in no queue; what it ran before goes on. Its row names the run,
so that whoever finds it dead knows which run to accuse: the count of all others stays as it is. Of several suspects the
one with the fewest deaths goes first, so that innocent ones share what one guilty worker host costs them.

What a run waits for durably (a sleep, another workflow, a value of a stream) cannot kill its worker, and is not on
record until it comes: so the owner looks, for a suspect only, whether all its code waits so, and for a moment.

How long the others wait: for what a suspect takes to do one of these, at the most ``lease`` seconds for each death but
two (with a lease of 10 s: 10 s for the first, 60 s at the most). One that kills at once holds nobody up but by its
deaths: of ten it is seven times alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.replay.stalls import Awaited, awaited_by
from dbosflow._store import worker
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._store.workflow import Claimed
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.quarantine")

SUSPECTED = 3
"""Deaths in a row that make a suspect. The claim and its index say the same."""
_LONGEST = 6
"""Leases that a quarantine takes at the most."""
_GLANCE = 0.05
_CALM = 0.1
"""Seconds for which a run must be seen to wait: one that reads a stream waits for each page, too."""
_RETRY = 0.5


class Quarantine:
    """The place for one suspect of a worker."""

    def __init__(self, pool: AsyncConnectionPool[Any], settings: Settings, lease: WorkerLease) -> None:
        self._pool = pool
        self._settings = settings
        self._lease = lease
        self._task: asyncio.Task[None] | None = None
        self._callbacks: tuple[Callable[[], None], ...] = ()

    @property
    def is_taken(self) -> bool:
        """Whether the worker may claim nothing else."""
        return self._task is not None

    def when_free(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls ``callback`` each time that the worker may claim again, until what this returns is called."""
        self._callbacks = (*self._callbacks, callback)

        def leave() -> None:
            self._callbacks = tuple(other for other in self._callbacks if other is not callback)

        return leave

    def enter(self, claimed: Claimed, find: Callable[[str], Run | None]) -> None:
        """Takes the suspect in, whose run is launched by now, and looks at it from here on."""
        logger.warning(
            "workflow %s: %d workers in a row have died with it, and it got no further; it is run alone",
            *(claimed.id, claimed.recoveries),
        )
        run = find(claimed.id)
        self._task = asyncio.get_running_loop().create_task(
            self._keep(claimed.id, run, claimed.recoveries), name=f"dbosflow-quarantine-{claimed.id}"
        )

    async def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self, workflow_id: str, run: Run | None, recoveries: int) -> None:
        worker_id, longest = self._lease.id, self._settings.lease * min(recoveries - SUSPECTED + 1, _LONGEST)
        acquitted = run is not None and await _is_acquitted(run, longest)
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
        self._task = None
        for callback in self._callbacks:
            callback()


async def _is_acquitted(run: Run, longest: float) -> bool:
    """Whether the run gets further, or only waits, before it is over, or ``longest`` seconds are."""
    loop = asyncio.get_running_loop()
    until, seq = loop.time() + longest, run.history.next_place[0]
    resumptions, calm_since = -1, 0.0
    while not run.is_over and loop.time() < until:
        if run.seq > seq or (_own_values(run) and not run.buffer.size):
            return True
        if not only_waits(run):
            resumptions = -1
        elif run.resumptions != resumptions:
            resumptions, calm_since = run.resumptions, loop.time()
        elif loop.time() - calm_since >= _CALM:
            return True
        await asyncio.sleep(_GLANCE)
    return False


def _own_values(run: Run) -> int:
    """How many values the run's own code has written that no earlier run had."""
    return 0 if run.written_streams is None else run.written_streams.new_values_of_body()


def only_waits(run: Run) -> bool:
    """Whether nothing of the run's code does anything: each branch waits durably, or for such a one."""
    if run.stopping is not None or run.bodies or run.buffer.size or run.is_replaying or not run.waits:
        return False
    if not run.definition.is_async:
        return run.root.owner is not None and run.root.owner.operating
    coroutines = run.coroutines
    return sum(coroutine.operating for coroutine in coroutines) == run.waits and all(
        coroutine.operating or (coroutine.waits and awaited_by(coroutine)[0] is not Awaited.OUTSIDE)
        for coroutine in coroutines
    )
