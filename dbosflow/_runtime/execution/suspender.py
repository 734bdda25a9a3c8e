"""Suspends runs that only wait: their workflows wait in the tables, without memory, thread, slot or lease meanwhile.

```text
running ──only waits for suspend_after──► stopped, unwound ──batch──► waiting ──wake_at, hint, sweep, cancel──► queued
   ▲                                                                                                             │
   └──────────────────────── claim: epoch + 1, replayed from its history ◄───────────────────────────────────────┘
```

What was committed while the suspension was on its way had no waiter to wake. So the tables are looked at again once the
suspension is durable: whoever commits later finds the waiter's row. A process that has not heard yet that anybody waits
wakes nobody; so they are looked at once more a moment later. The sweeper finds what is lost otherwise.

A replay is work. So a run goes only when it has waited for a multiple of what its last replay took. But where all
slots of a queue are taken and work waits for one, a run of that queue that only waits goes almost at once: the work may
be the child that it waits for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._records.pins import queue_of
from dbosflow._runtime.execution.idle_runs import Departure, departure_of
from dbosflow._runtime.process.service import Service
from dbosflow._runtime.wakeups.waker import HEARD_WITHIN
from dbosflow._store import waiter, waiting, worker
from dbosflow._store.notify import WAITERS_TOPIC, WORKERS_TOPIC, queue_topic
from dbosflow._store.waiter import Target, Waiting
from dbosflow.errors import DbosflowError
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.runner import Runner
    from dbosflow._runtime.journal.owner import Announce
    from dbosflow._runtime.runs.entries import Suspension
    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.suspender")

SINCE = "0.1.0"
"""The first version whose workers cancel and wake what is suspended."""
REPLAYS = 20.0
"""How many times as long as its last replay a run waits in memory, at least."""
_ROOM_AFTER = 1.0
"""Seconds after which a run that only waits makes room for others of its queue."""
_MOST = 200
"""Runs in one look, between which others have their turn."""
_SHORTEST = 0.005
"""Seconds between two looks at runs."""


@dataclass(slots=True, eq=False)
class _Candidate:
    """A run that has waited: when to look at it, and since when none of its code was resumed."""

    look_at: float
    resumptions: int
    since: float


@dataclass(slots=True, eq=False)
class _Suspended:
    """A suspended workflow, for which the tables are looked at again."""

    workflow_id: str
    queue: str
    targets: tuple[Target, ...]
    look_at: float
    has_time: bool
    """Whether it waits for a time, too."""
    is_last: bool = False
    """Whether no other look follows."""

    def rows(self) -> list[Waiting]:
        """What it waits for."""
        return [Waiting(self.workflow_id, target) for target in self.targets]


class Suspender(Service):
    """Suspends the runs of one engine."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        settings: Settings,
        wakeups: Wakeups,
        *,
        runner: Runner,
        names: Callable[[], list[str]],
        announce: Announce,
        expect: Callable[[float], None],
    ) -> None:
        super().__init__("suspender", interval=settings.suspend_after)
        self._pool = pool
        self._settings = settings
        self._runner = runner
        self._names = names
        """The names of the workflows that this engine knows."""
        self._announce = announce
        self._expect = expect
        """Called with the seconds until a suspended workflow is to be woken."""
        self._lock = threading.Lock()
        self._candidates: OrderedDict[Run, _Candidate] = OrderedDict()
        """By the time of the next look."""
        self._suspended: list[_Suspended] = []
        self._full: set[str] = set()
        """The queues whose slots are all taken."""
        self._sharing: list[frozenset[str]] = []
        """The queues that share slots."""
        self._hurries = False
        """Whether nothing that only waits stays in memory."""
        self._older: list[str] | None = None
        """Live workers of older code, which cannot honour a suspension; ``None`` if that is not known."""
        self._changes = 0
        """How often it was heard that there may be other workers."""
        self._unsubscribe = wakeups.subscribe(WORKERS_TOPIC, self._workers_changed)
        runner.suspended.watch = self

    async def close(self) -> None:
        """Suspends nothing any more."""
        self._unsubscribe()
        await super().close()

    async def last_look(self) -> None:
        """Looks now at what it would look at later. The worker ends, and its last suspensions are durable."""
        try:
            async with asyncio.timeout(HEARD_WITHIN):
                await self._look_again(self._suspended)
        except (psycopg.Error, DbosflowError, OSError) as error:  # a sweep finds what this would have
            logger.info("the last look at suspended workflows failed: %s", error)

    # -- told by the runner ------------------------------------------------------------------------------------------

    def waits(self, run: Run) -> None:
        """Takes a run whose operation waits. Called from any thread."""
        now = time.monotonic()
        with self._lock:
            if not run.is_over:  # it may have ended since, when this thread waited for the lock
                self._candidates[run] = _Candidate(now + self._settings.suspend_after, run.resumptions, now)

    def is_over(self, run: Run) -> None:
        """Forgets a run."""
        with self._lock:
            self._candidates.pop(run, None)

    def is_suspended(self, run: Run, suspension: Suspension) -> None:
        """A suspension is durable: what comes from here on wakes the workflow, and what has come is looked up."""
        if suspension.delay is not None:
            self._expect(suspension.delay)
        if suspension.targets:
            self._announce([WAITERS_TOPIC], at_once=False)
        has_time = suspension.delay is not None
        self._suspended.append(_Suspended(run.workflow_id, run.queue, suspension.targets, time.monotonic(), has_time))
        self.wake()

    def slots_taken(self, queue: str, *, all_of_them: bool) -> None:
        """Whether all slots of a queue are taken, as its claimer finds."""
        if not all_of_them:
            self._full.discard(queue)
        elif queue not in self._full:
            self._full.add(queue)
            self.wake()

    @contextmanager
    def hurrying(self) -> Iterator[None]:
        """Lets all that only waits go almost at once, during the block."""
        self._hurries = True
        self.wake()
        try:
            yield
        finally:
            self._hurries = False

    @property
    def is_settled(self) -> bool:
        """Whether what has come while a suspension was on its way was looked up."""
        return all(one.is_last for one in self._suspended)

    @contextmanager
    def sharing(self, queues: Iterable[str]) -> Iterator[None]:
        """During the block these queues share their slots: a run of one makes room for work of another."""
        group = frozenset(queues)
        self._sharing.append(group)
        try:
            yield
        finally:
            self._sharing.remove(group)

    def _workers_changed(self) -> None:
        self._older = None
        self._changes += 1

    # -- suspending --------------------------------------------------------------------------------------------------

    async def work_once(self) -> bool:
        """Looks again at what was suspended, then suspends what has waited long enough."""
        now = time.monotonic()
        await self._look_again([one for one in self._suspended if one.look_at <= now][:_MOST])
        due = self._due(now)
        for run in due:
            await self._look_at(run, now, self._settings.suspend_after)
        if self._full or self._hurries:
            await self._make_room(now)
        with self._lock:
            looks = [next(iter(self._candidates.values())).look_at] if self._candidates else []
        looks += [one.look_at for one in self._suspended]
        looks += [now + _ROOM_AFTER] if self._full or self._hurries else []
        self._interval = max(min(looks, default=now + self._settings.suspend_after) - now, _SHORTEST)
        await asyncio.sleep(0)
        return len(due) == _MOST

    async def _make_room(self, now: float) -> None:
        """Suspends what only waits and keeps other work of its queue from a slot."""
        least = min(self._settings.suspend_after, _ROOM_AFTER)
        full = {queue_of(one) for one in self._full}  # a run that is not pinned keeps a slot from what is, too
        with self._lock:
            runs = [run for run in self._candidates if self._hurries or queue_of(run.queue) in full]
        idle = [
            run for run in runs if self._kept_by(run, now, least) is None and isinstance(departure_of(run), Departure)
        ]
        for queues in {self._group_of(queue_of(run.queue)) for run in idle}:
            going = [run for run in idle if queue_of(run.queue) in queues]
            for run in going[: len(going) if self._hurries else await self._work(queues, len(going))]:
                await self._look_at(run, now, least)

    def _group_of(self, queue: str) -> frozenset[str]:
        """The queues whose work has the slots of this one."""
        return next((group for group in self._sharing if queue in group), frozenset({queue}))

    async def _work(self, queues: Container[str], most: int) -> int:
        """For how many slots of the queues work waits: what is pinned to the worker's version shares them."""
        names, schema, found = self._names(), self._settings.schema, 0
        for stored in [one for one in self._full if queue_of(one) in queues]:
            async with self._pool.connection() as connection:
                found += await waiting.work(connection, schema, queue=stored, names=names, most=most)
        return found

    def _due(self, now: float) -> list[Run]:
        with self._lock:
            due: list[Run] = []
            for run, candidate in self._candidates.items():
                if candidate.look_at > now or len(due) == _MOST:
                    break
                due.append(run)
            return due

    async def _look_at(self, run: Run, now: float, least: float) -> None:
        kept_by = self._kept_by(run, now, least)
        if kept_by is None and (older := await self._older_workers()):
            kept_by = f"older workers, which could not wake it: {', '.join(older)}"
        if kept_by is None:
            departure = departure_of(run)
            if run.buffer.ahead:  # nothing else would take the records of draws along
                run.submit()
            if isinstance(departure, Departure) and self._runner.suspended.suspend(run, departure):
                logger.debug("workflow %s only waits, and leaves memory", run.workflow_id)
        with self._lock:
            candidate = self._candidates.get(run)
            if candidate is not None:
                candidate.look_at = now + self._settings.suspend_after
                self._candidates.move_to_end(run)

    def _kept_by(self, run: Run, now: float, least: float) -> str | None:
        """What keeps a run that may be idle: that it has not been so for long enough."""
        with self._lock:
            candidate = self._candidates.get(run)
        if candidate is None:
            return "its end"
        if candidate.resumptions != run.resumptions:
            candidate.resumptions, candidate.since = run.resumptions, now
        least = max(least, REPLAYS * (run.replay_took or 0.0))
        return None if now - candidate.since >= least else "the time that it waits in memory"

    async def _older_workers(self) -> list[str]:
        """The live workers that could not wake what is suspended."""
        older, changes = self._older, self._changes
        if older is None:
            async with self._pool.connection() as connection:
                older = await worker.older_than(connection, self._settings.schema, SINCE)
            if changes == self._changes:  # what was heard meanwhile may not be in the answer: it is asked for next time
                self._older = older
            if older:
                logger.warning("runs stay in memory while older workers are alive: %s", ", ".join(older))
        return older

    # -- the second look ---------------------------------------------------------------------------------------------

    async def _look_again(self, due: list[_Suspended]) -> None:
        if not due:
            return
        now = time.monotonic()
        schema, queues = self._settings.schema, {one.workflow_id: one.queue for one in due}
        async with self._pool.connection() as connection:
            statuses = await waiter.statuses(connection, schema, list(queues))
            waiting = [one for one in due if statuses.get(one.workflow_id) is WorkflowStatus.WAITING]
            rows = [row for one in waiting for row in one.rows()]
            news = await waiter.with_news(connection, schema, rows)
            # One that waits for its own end over others is told so when it waits again: see operations/children.py.
            alone = [one for one in waiting if one.is_last and len(one.targets) == 1 and not one.has_time]
            news |= await waiter.in_circles(connection, schema, [row for one in alone for row in one.rows()])
            woken = set(await waiter.wake(connection, schema, sorted(news))) if news else set()
        # One that is to be cancelled was queued by its own suspension, when nobody looked for it any more.
        woken |= {one.queue for one in due if statuses.get(one.workflow_id) is WorkflowStatus.QUEUED}
        again = [one for one in waiting if one.targets and one.workflow_id not in news and not one.is_last]
        looked = {*due}
        self._suspended = [one for one in self._suspended if one not in looked]
        self._suspended += [replace(one, look_at=now + HEARD_WITHIN, is_last=True) for one in again]
        if woken:
            self._announce(map(queue_topic, woken))
