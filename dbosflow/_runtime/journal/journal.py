"""The journal: group commit with output-commit order. The heart of the engine.

Every durable record of every run of a worker is appended in memory. The journal takes all pending records, writes them
as ONE statement (one round trip, one WAL flush), and only then wakes their waiters. While that statement is under way
the next batch gathers, so a lone step pays one commit and no artificial delay, and a thousand concurrent steps share a
handful. The runs that a large batch sets free go on while the next batch is under way, so that neither the server nor
the loop waits for the other.

``committer`` explains how a batch is sent, and what can become of it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import asynccontextmanager
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psycopg

from dbosflow._runtime.journal.batch import Batch
from dbosflow._runtime.journal.committer import Committer, back_off, line
from dbosflow._runtime.journal.slice import Slice, take_out
from dbosflow._runtime.journal.source import Source
from dbosflow._runtime.process.service import Service
from dbosflow._runtime.runs.entries import Continuation
from dbosflow.errors import DbosflowError, LeaseLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from dbosflow._runtime.journal.owner import Announce, JournalOwner, Tripwire, Write
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._runtime.runs.entries import Entry, Start
    from dbosflow._runtime.streams.statistics import StreamStatistics
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.journal")

_MOST_SLICES = 200
"""Runs and starts in one batch: with more, the loop idles while the server writes, and then the server idles."""
_LEAST_STARTS = 50
"""How many of them may be starts, however much the running workflows write."""
_MANY = 32
"""Runs and starts that make a batch large enough to be delivered while the next one is under way."""


R = TypeVar("R", bound=Source)


class Journal(Service, Generic[R]):
    """The journal of one worker."""

    tripwire: Tripwire | None = None

    def __init__(
        self,
        lease: WorkerLease,
        settings: Settings,
        owner: JournalOwner[R],
        announce: Announce,
        statistics: StreamStatistics,
        *,
        write: Write | None = None,
    ) -> None:
        super().__init__("journal", interval=None)
        self._lease = lease
        self._settings = settings
        self._owner = owner
        self._announce = announce
        self._statistics = statistics
        self._committer = Committer(lease, settings, owner, self, write=write)
        self._gathered_at = 0.0
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._submitted: deque[R] = deque()
        self._starts: deque[Start] = deque()
        self._last: deque[tuple[R, Sequence[Entry]]] = deque()
        self._under_way: Batch[R] | None = None
        self._durable: deque[tuple[Slice[R] | Start, set[str]]] = deque()
        """Slices and starts that are durable and not yet delivered, each with the ids that its statement inserted."""
        self._held: set[R] = set()
        """Runs of which nothing is taken: a transaction of theirs is being committed on another connection."""
        self._when_delivered: list[asyncio.Future[None]] = []
        self._lease_is_over = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- appending ---------------------------------------------------------------------------------------------------

    def submit(self, run: R) -> None:
        """Notes that ``run`` has pending entries. Callable from any thread."""
        if run.buffer.submitted:
            return
        run.buffer.submitted = True
        if threading.get_ident() == self._thread:  # to ask for the running loop is a system call in Python 3.11
            self._add(run)
        else:
            self._loop.call_soon_threadsafe(self._add, run)

    def start(self, start: Start) -> None:
        """Appends the start of a workflow in this process."""
        self._starts.append(start)
        self._wake_for_work()

    def finish(self, run: R, *last: Entry) -> None:
        """Writes the end of a run that was stopped for good, and nothing else of that run but what is given."""
        self._last.append((run, last))
        self._wake_for_work()

    def lease_is_over(self) -> None:
        """The worker's row is dead, as a renewal found. An idle worker has no batch that would show it."""
        self._lease_is_over = True
        self._wake_for_work()

    def _add(self, run: R) -> None:
        self._submitted.append(run)
        self._wake_for_work()

    def _wake_for_work(self) -> None:
        if self._idle.is_set():  # else it is at work, and gathers again before it rests
            self._idle.clear()
            self.wake()

    async def flush(self) -> None:
        """Waits until everything appended is durable, or owned here no more; or until nobody will ever write it."""
        idle = asyncio.ensure_future(self._idle.wait())
        try:
            await asyncio.wait(
                {idle} if self._task is None else {idle, self._task}, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            idle.cancel()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """The lease's connection, between two batches: for claims, which the fence covers, too.

        What is durable is delivered by then: a workflow that the worker owns and does not run would count as lost.
        """
        async with self._lease.lock:
            self.deliver()
            yield await self._lease.connection()

    # -- transactions, whose last statement is a batch of one run on another connection ------------------------------

    async def hold(self, run: R) -> None:
        """Takes nothing of ``run`` any more; returns when nothing of it is under way. Then ``let_go`` is due."""
        self._held.add(run)
        while self._has_part_of(run):
            delivered = self._loop.create_future()
            self._when_delivered.append(delivered)
            await delivered

    def _has_part_of(self, run: R) -> bool:
        slices = self._under_way.slices if self._under_way is not None else ()
        return any(part.run is run for part in slices) or any(
            isinstance(part, Slice) and part.run is run for part, _ in self._durable
        )

    def let_go(self, run: R) -> None:
        """Takes again what ``run`` has pending."""
        self._held.discard(run)
        if self._submitted or self._last:
            self._wake_for_work()

    def _delivered(self) -> None:
        waiting, self._when_delivered = self._when_delivered, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def dies(self, part: Slice[R], *, written: bool) -> bool:
        """Whether a test ends the worker here, before or behind the statement of a transaction."""
        if self.tripwire is None:
            return False
        async with self._lease.lock:
            return await self._dies(self.tripwire, Batch([part], []), written=written)

    def committed_elsewhere(self, part: Slice[R], seconds: float) -> None:
        """A part of a run that is held is durable, ``seconds`` after it was made: what follows a commit, at once."""
        batch = Batch([part], [])
        self._tell_of(batch, seconds)
        part.acknowledged(set())

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def work_once(self) -> bool:
        """Writes one batch: the one that failed before, or everything pending."""
        if self._lease_is_over:
            async with self._lease.lock:
                await self.lease_lost(self._under_way or Batch([], []))
        if self._under_way is None:
            self._gathered_at = time.monotonic()
        batch = self._under_way or self._gather()
        if batch.empty:
            if self._durable:
                self.deliver()
                return True
            self._idle.set()
            return False
        self._under_way = batch
        if self._durable:
            self._loop.call_soon(self.deliver)  # when the batch is on the wire, or has to wait for something
        async with self._lease.lock:
            if self.tripwire is None or not await self._dies(self.tripwire, batch, written=False):
                await self._committer.commit(batch)
        self._under_way = None
        self._delivered()
        await self._go_on()
        return True

    async def _go_on(self) -> None:
        """Delivers a small batch now, a large one when the next is on its way; half of it if nothing else is pending.

        The other half then goes on while the records that the first half appends are being written.
        """
        others = bool(self._submitted or self._starts)
        if len(self._durable) < _MANY:
            self.deliver()
        elif not others:
            self.deliver(len(self._durable) // 2)
        if not others:
            await asyncio.sleep(0)  # what was set free runs first, and its records are gathered at once

    def deliver(self, most: int | None = None) -> None:
        """Delivers what is durable: runs go on, children begin, and waiters for starts are notified."""
        for _ in range(len(self._durable) if most is None else most):
            part, started = self._durable.popleft()
            if not isinstance(part, Slice):
                part.on_decided(take_out(started, part.workflow_id))
                continue
            part.acknowledged(started)
            if isinstance(part.ending, Continuation) and part.carried is not None:
                self._owner.continued(part.run, part.ending, part.carried)
            elif part.ending is not None:
                self._owner.ended(part.run, part.ending)
        self._delivered()

    def _gather(self) -> Batch[R]:
        """Takes what is pending, up to the limit of a batch, with the entries of each run in order.

        Runs go before starts, which have a part of each batch for themselves all the same.
        """
        limit = self._settings.batch_bytes
        held = {part.run for part, _ in self._durable if isinstance(part, Slice)}  # their next offsets are unknown
        held |= self._held
        slices = self._take_last(held) if self._last else []
        most = _MOST_SLICES - min(len(self._starts), _LEAST_STARTS)
        for _ in range(len(self._submitted)):  # those that have nothing for the batch hide nobody behind them
            if len(slices) >= most or (limit <= 0 and slices):
                break
            run = self._submitted.popleft()
            if run in held:
                self._submitted.append(run)
                continue
            buffer = run.buffer
            if run.holds_back:
                buffer.hold_back()
                continue
            entries, size, more = buffer.take(max(limit, 1))
            if more and not buffer.submitted:
                buffer.submitted = True
                self._submitted.append(run)
            if entries and (run.stopping is None or run.contradiction is not None):
                slices.append(Slice(run, entries))
                limit -= size
        return Batch(slices, self._take_starts(_MOST_SLICES - len(slices), limit))

    def _take_last(self, held: set[R]) -> list[Slice[R]]:
        """Takes ends of runs that were stopped for good, half a batch at most."""
        slices = []
        for _ in range(min(len(self._last), _MOST_SLICES // 2)):
            run, entries = self._last.popleft()
            if run in held:
                self._last.append((run, entries))
            else:
                slices.append(Slice(run, entries))
        return slices

    def _take_starts(self, count: int, limit: int) -> list[Start]:
        """Takes up to ``count`` starts, about ``limit`` bytes."""
        taken: list[Start] = []
        while self._starts and len(taken) < count and (limit > 0 or not taken):
            taken.append(start := self._starts.popleft())
            limit -= start.size
        return taken

    # -- one batch ---------------------------------------------------------------------------------------------------

    async def _dies(self, tripwire: Tripwire, batch: Batch[R], *, written: bool) -> bool:
        if not await tripwire(batch, written=written):
            return False
        await self.lease_lost(batch)
        return True

    async def lease_lost(self, batch: Batch[R]) -> None:
        """The lease is dead: stops every run of the worker, and keeps the starts for the next lease, taken here."""
        logger.warning("the lease of worker %s is lost; its runs go on elsewhere", self._lease.id)
        self.deliver()
        self._owner.lease_lost()
        self._starts.extendleft(reversed(batch.starts))
        self._under_way = None
        for attempt in count(1):
            try:
                await self._lease.reopen()
            except (psycopg.Error, DbosflowError, OSError) as error:
                logger.warning("no new lease yet: %s; trying again", line(error))
                await self._lease.disconnect()
                await back_off(attempt)
            else:
                self._lease_is_over = False
                return

    async def written(self, batch: Batch[R], started: Iterable[str]) -> None:
        """The batch has just become durable, and has inserted ``started``."""
        if self.tripwire is None or not await self._dies(self.tripwire, batch, written=True):
            self.acknowledge(batch, started)

    def acknowledge(self, batch: Batch[R], started: Iterable[str]) -> None:
        """The batch is durable: wakes readers, notifies peers, and lets its runs go on."""
        self._tell_of(batch, time.monotonic() - self._gathered_at)
        parts: list[Slice[R] | Start] = [*batch.slices, *batch.starts]
        self._durable.extend(zip(parts, repeat(set(started))))

    def _tell_of(self, batch: Batch[R], seconds: float) -> None:
        batch.count_in(self._statistics, seconds)
        if topics := batch.topics():
            self._announce(topics, at_once=batch.is_awaited_elsewhere, notified=batch.notified)

    def fail_pending(self) -> None:
        """Fails what could not be written when the journal closes; callers of starts are notified."""
        self.deliver()
        for start in (*(self._under_way.starts if self._under_way else ()), *self._starts):
            start.on_decided(LeaseLostError("the engine closed before the start was durable"))
        self._starts.clear()
