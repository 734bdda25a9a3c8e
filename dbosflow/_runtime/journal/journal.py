"""The journal: group commit with output-commit order. The heart of the engine.

Every durable record of every run of a worker is appended in memory; the journal takes all that is pending, writes it as
ONE statement (one round trip, one WAL flush), and only then wakes who waits. While that statement is under way the next
batch gathers, so a lone step pays one commit and no artificial delay, and a thousand concurrent steps share a handful.
What a large batch sets free goes on while the next one is under way, so that neither the server nor the loop waits for
the other.

What can become of a batch:

```text
gather ──► send ──► written ──────────────────────────► acknowledge: wake readers, notify, deliver
            │  ▲
            │  └─ connection lost, overload, read-only ── witness: there? ─► acknowledge
            │        (the same batch again)                  not there ─► send
            ├─ gate shut: no lease ─► every run of the worker stops; starts wait for the next lease
            │             not mine ─► that run stops; the rest is sent again
            │             moved ────► that run reloads; the rest is sent again
            │             cancelled ► that run ends so instead; the rest is sent again
            │             timeline ─► every run reloads (behind a pooler; else the worker's connection tells)
            └─ refused for its data ─► slice by slice; the refused one ends its run with a typed error, and if
                          that is refused, too, for what its streams would end with: without that
```

After a lost acknowledgement nothing is guessed: every slice leaves a row that only it can write, under a key fixed
before it was sent, and that row tells. A late copy of a batch finds its keys taken or the gate shut.

Each answer names the runs that somebody has asked to cancel; they are notified before they go on (``canceller``).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg

from dbosflow._runtime.journal.batch import Batch, Slice, take_out
from dbosflow._runtime.journal.source import Source
from dbosflow._runtime.process.service import Service
from dbosflow._runtime.runs.entries import MOST_REFUSALS, Ending
from dbosflow._store.batch import is_durable, write_batch
from dbosflow._store.queries import is_refused
from dbosflow.errors import DbosflowError, LeaseLostError, SerializationError
from dbosflow.failures import dump_error
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._runtime.runs.entries import Start
    from dbosflow._runtime.streams.statistics import StreamStatistics
    from dbosflow._store.batch import BatchResult
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.journal")

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0
_OFTEN = 5
_MOST_SLICES = 200
"""Runs and starts in one batch: with more, the loop has nothing to do while the server writes, and then the server."""
_LEAST_STARTS = 50
"""How many of them may be starts, however much is written by what runs."""
_MANY = 32
"""Runs and starts in a batch for which it is worth delivering while the next one is under way."""
_MOST_LOST_PLACES = 1000
"""How often the end of an input may lose its place to writers before its run reloads: then something else is wrong."""


R = TypeVar("R", bound=Source)
Owned_contra = TypeVar("Owned_contra", bound=Source, contravariant=True)


class JournalOwner(Protocol[Owned_contra]):
    """What the journal calls when it finds something out about its runs."""

    def ended(self, run: Owned_contra, ending: Ending) -> None:
        """The end of ``run`` is durable."""

    def lost(self, run: Owned_contra) -> None:
        """``run`` is owned elsewhere."""

    def moved(self, run: Owned_contra) -> None:
        """The tables are not what ``run`` remembers: it must reload."""

    def cancel_requested(self, run: Owned_contra) -> None:
        """Somebody has asked to cancel the workflow of ``run``."""

    def overtaken(self, run: Owned_contra) -> None:
        """The end of ``run`` was not written, since a cancel came first."""

    def unwritable(self, run: Owned_contra) -> None:
        """The database takes nothing of ``run``, not even its end."""

    def lease_lost(self) -> None:
        """Every run of the worker is owned elsewhere, or will be."""


class Announce(Protocol):
    """How the journal announces news."""

    def __call__(self, topics: Iterable[str], *, at_once: bool = True) -> None:
        """Wakes who waits for these topics, here and elsewhere; ``at_once`` those elsewhere first."""


class Tripwire(Protocol):
    """Where a test ends a worker, as the death of its process would."""

    async def __call__(self, batch: Batch[Any], *, written: bool) -> bool:
        """Whether the worker dies here: before ``batch`` is sent, or once it is durable and nobody was notified."""


class Journal(Service, Generic[R]):
    """The journal of one worker."""

    tripwire: Tripwire | None = None

    def __init__(
        self,
        lease: WorkerLease,
        settings: Settings,
        owner: JournalOwner[R],
        announce: Announce,
        statistics: StreamStatistics | None = None,
    ) -> None:
        super().__init__("journal", interval=None)
        self._lease = lease
        self._settings = settings
        self._owner = owner
        self._announce = announce
        self._statistics = statistics
        self._gathered_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._submitted: deque[R] = deque()
        self._starts: deque[Start] = deque()
        self._last: list[tuple[R, Ending]] = []
        self._under_way: Batch[R] | None = None
        self._durable: deque[tuple[Slice[R] | Start, set[str]]] = deque()
        """What is durable and has yet to be delivered, each with the ids that its statement inserted."""
        self._lease_is_over = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- what is appended --------------------------------------------------------------------------------------------

    def submit(self, run: R) -> None:
        """Says that ``run`` has pending entries. Callable from any thread."""
        if run.buffer.submitted:
            return
        run.buffer.submitted = True
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 (None on a thread, where get_running_loop raises)
            self._add(run)
        else:
            self._loop.call_soon_threadsafe(self._add, run)

    def start(self, start: Start) -> None:
        """Appends the start of a workflow in this process."""
        self._starts.append(start)
        self._wake_for_work()

    def finish(self, run: R, ending: Ending) -> None:
        """Writes the end of a run that was stopped for good, and nothing else of it."""
        self._last.append((run, ending))
        self._wake_for_work()

    def lease_is_over(self) -> None:
        """The worker's row is dead, as a renewal found. An idle worker has no batch to find it out by."""
        self._lease_is_over = True
        self._wake_for_work()

    def _add(self, run: R) -> None:
        self._submitted.append(run)
        self._wake_for_work()

    def _wake_for_work(self) -> None:
        self._idle.clear()
        self.wake()

    async def flush(self) -> None:
        """Waits until all that was appended is durable, or belongs to nobody any more."""
        await self._idle.wait()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """The connection of the lease, between two batches: for claims, which the fence covers, too.

        What is durable is delivered by then: a workflow of the worker that nobody runs would be taken for a lost one.
        """
        async with self._lease.lock:
            self._deliver()
            yield await self._lease.connection()

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def work_once(self) -> bool:
        """Writes one batch: the one that failed before, or all that is pending."""
        if self._lease_is_over:
            async with self._lease.lock:
                await self._lease_lost(self._under_way or Batch([], []))
        if self._under_way is None:
            self._gathered_at = time.monotonic()
        batch = self._under_way or self._gather()
        if batch.empty:
            if self._durable:
                self._deliver()
                return True
            self._idle.set()
            return False
        self._under_way = batch
        if self._durable:
            self._loop.call_soon(self._deliver)  # when the batch is on the wire, or has to wait for something
        async with self._lease.lock:
            if self.tripwire is None or not await self._dies(self.tripwire, batch, written=False):
                await self._commit(batch)
        self._under_way = None
        await self._go_on()
        return True

    async def _go_on(self) -> None:
        """Delivers a small batch now, a large one when the next is on its way; half of it if nothing else is pending.

        The other half then goes on while that is under way which the first appends.
        """
        others = bool(self._submitted or self._starts)
        if len(self._durable) < _MANY:
            self._deliver()
        elif not others:
            self._deliver(len(self._durable) // 2)
        if not others:
            await asyncio.sleep(0)  # what was set free goes on first, and what it appends is gathered at once

    def _deliver(self, most: int | None = None) -> None:
        """Runs go on from what is durable, children begin, and who waits for a start is notified."""
        for _ in range(len(self._durable) if most is None else most):
            part, started = self._durable.popleft()
            if not isinstance(part, Slice):
                part.on_decided(take_out(started, part.workflow_id))
                continue
            part.acknowledged(started)
            if part.ending is not None:
                self._owner.ended(part.run, part.ending)

    def _gather(self) -> Batch[R]:
        """Takes what is pending, up to the limit of a batch; a run's entries in their order.

        What runs goes before what is to begin, which has a part of each batch for itself all the same.
        """
        limit = self._settings.batch_bytes
        held = {part.run for part, _ in self._durable if isinstance(part, Slice)}  # their next place is not known yet
        slices = [Slice(run, [ending]) for run, ending in self._last if run not in held]
        self._last = [(run, ending) for run, ending in self._last if run in held]
        for _ in range(min(len(self._submitted), _MOST_SLICES - min(len(self._starts), _LEAST_STARTS))):
            if limit <= 0 and slices:
                break
            run = self._submitted.popleft()
            if run in held:
                self._submitted.append(run)
                continue
            entries, more = run.take(max(limit, 1))
            if more and not run.buffer.submitted:
                run.buffer.submitted = True
                self._submitted.append(run)
            if entries and (run.stopping is None or run.contradiction is not None):
                slices.append(Slice(run, entries))
                limit -= sum([entry.size for entry in entries])
        return Batch(slices, self._take_starts(_MOST_SLICES - len(slices), limit))

    def _take_starts(self, count: int, limit: int) -> list[Start]:
        """So many pending starts, about ``limit`` bytes; an id once: the same id again is decided by the first."""
        taken: dict[str, Start] = {}
        again: list[Start] = []
        while self._starts and len(taken) < count and (limit > 0 or not taken):
            start = self._starts.popleft()
            limit -= len(start.input) + 200
            if taken.setdefault(start.workflow_id, start) is not start:
                again.append(start)
        self._starts.extend(again)
        return list(taken.values())

    # -- one batch ---------------------------------------------------------------------------------------------------

    async def _commit(self, batch: Batch[R]) -> None:
        """Sends ``batch`` until it is durable, or belongs to nobody any more."""
        while not batch.empty:
            try:
                connection = await self._lease.connection()
                if stopped := batch.stopped_runs():  # to connect may be to find another timeline, and stop every run
                    batch = batch.without(stopped)
                    continue
                batch.sent += 1
                lease = self._lease
                result = await write_batch(
                    connection, batch.rows(), lease.id, self._settings.schema, lease.hidden_timeline
                )
                known = result.written or (batch.sent > 1 and await self._is_durable(batch))
            except (DbosflowError, OSError) as error:
                await self._wait_for_database(batch, error)
                continue
            except Exception as error:  # noqa: BLE001 (the database's, the driver's, or of code that binds values)
                if await self._was_overtaken(batch, error):
                    continue
                if is_refused(error):
                    await self._settle_refused(batch, error)
                    return
                if await self._durable_after(batch, error):
                    await self._written(batch, frozenset())  # whether a start was the first is asked of its row
                    return
                continue
            self._report_cancel_requests(batch, result)
            if known:
                await self._written(batch, result.started)
                return
            if not result.leased:
                await self._lease_lost(batch)
                return
            batch = self._without_failed(batch, result)

    async def _dies(self, tripwire: Tripwire, batch: Batch[R], *, written: bool) -> bool:
        if not await tripwire(batch, written=written):
            return False
        await self._lease_lost(batch)
        return True

    def _report_cancel_requests(self, batch: Batch[R], result: BatchResult) -> None:
        """Reports cancel requests before anything is delivered: then nothing begins that follows from it."""
        if result.cancelled:
            for part in batch.slices:
                if part.run.workflow_id in result.cancelled:
                    self._owner.cancel_requested(part.run)

    async def _was_overtaken(self, batch: Batch[R], error: Exception) -> bool:
        """Whether somebody came first in the instant of the statement, whose next snapshot sees that: it is sent again.

        A cancel, where the run was to end otherwise (nothing else in a batch can divide by zero); or an outside writer,
        who has taken the place that the end of an input was to have. That one is sent alone, since the runs of one
        statement share its fate.
        """
        if isinstance(error, psycopg.errors.DivisionByZero):
            return batch.sent < _MOST_LOST_PLACES
        if not (isinstance(error, psycopg.errors.UniqueViolation) and batch.closes_inputs and len(batch.slices) == 1):
            return False
        return (
            batch.sent < _MOST_LOST_PLACES and not batch.starts and not (batch.sent > 1 and await self._is_seen(batch))
        )

    async def _durable_after(self, batch: Batch[R], error: Exception) -> bool:
        """After an error that leaves the batch's fate open: asks a witness, over a new connection if need be."""
        _log_trouble(batch, error, "looking whether it is durable")
        await self._back_off(batch.sent)
        while True:
            try:
                return await self._is_seen(batch)
            except (psycopg.Error, DbosflowError, OSError) as again:
                await self._wait_for_database(batch, again)

    async def _is_seen(self, batch: Batch[R]) -> bool:
        """Whether a witness says that it is durable. One that is refused says nothing: a batch may be sent again."""
        try:
            return await self._is_durable(batch)
        except Exception as error:
            if not is_refused(error):
                raise
            return False

    async def _is_durable(self, batch: Batch[R]) -> bool:
        connection = await self._lease.connection()
        return await is_durable(connection, batch.rows(), self._lease.id, self._settings.schema)

    async def _wait_for_database(self, batch: Batch[R], error: Exception) -> None:
        _log_trouble(batch, error, "trying again")
        await self._lease.disconnect()
        await self._back_off(batch.sent)

    async def _back_off(self, sent: int) -> None:
        pause = min(_FIRST_PAUSE * 2 ** min(sent, 10), _LONGEST_PAUSE)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)

    async def _settle_refused(self, batch: Batch[R], error: Exception) -> None:
        """The database or the driver refuses something in the batch for its data."""
        if batch.sent > 1 and isinstance(error, psycopg.errors.UniqueViolation) and await self._is_seen(batch):
            self._acknowledge(batch, frozenset())
            self._deliver()
            return
        parts = batch.split_off_inputs() if isinstance(error, psycopg.errors.UniqueViolation) else batch.split()
        if len(parts) > 1:
            for part in parts:
                await self._commit(part)
                self._deliver()
            return
        if batch.starts:
            batch.starts[0].on_decided(_unfit(error))
        elif isinstance(error, psycopg.errors.UniqueViolation):
            run = batch.slices[0].run
            logger.error(
                "workflow %s: a row stands that this run did not write; please report it: %s", run.workflow_id, error
            )
            self._owner.moved(run)
        else:
            await self._end_refused(batch.slices[0], error)

    async def _end_refused(self, part: Slice[R], error: Exception) -> None:
        """Ends a run whose data is refused: without the data, with the reason. Each time with less that may be refused.

        In the end nothing is left but the row of the workflow. Should even that be refused, it is let go of.
        """
        run, before = part.run, part.ending
        refusals = 1 if before is None else before.refusals + 1
        run.stop("the database refused its data")
        if refusals > MOST_REFUSALS:
            logger.critical(
                "workflow %s cannot be ended, and runs again with the next look for forgotten runs: %s",
                *(run.workflow_id, _line(error)),
            )
            self._owner.unwritable(run)
            return
        if before is not None and not before.yields_to_cancel:
            ending = Ending(before.status, refusals=refusals)
        else:
            ending = Ending(WorkflowStatus.FAILED, error=dump_error(_unfit(error)), refusals=refusals)
        await self._commit(Batch([Slice(run, [ending])], []))

    def _without_failed(self, batch: Batch[R], result: BatchResult) -> Batch[R]:
        """The gate was shut by some runs, or by another timeline: these go, the rest is sent again."""
        if result.timeline is not None and self._lease.is_new(result.timeline):
            return batch.without(batch.stopped_runs())
        failed: set[R] = set()
        overtaken: list[Slice[R]] = []
        for part in batch.slices:
            run = part.run
            if run.workflow_id not in result.mine:
                failed.add(run)
                self._owner.lost(run)
            elif run.workflow_id in result.moved:
                failed.add(run)
                self._owner.moved(run)
            elif part.ending is not None and part.ending.yields_to_cancel and run.workflow_id in result.cancelled:
                failed.add(run)
                overtaken.append(part)
        rest = batch.without(failed)
        for part in overtaken:
            if (others := part.without_end()) is not None:
                rest.slices.append(others)
            self._owner.overtaken(part.run)
        return rest

    async def _lease_lost(self, batch: Batch[R]) -> None:
        logger.warning("the lease of worker %s is lost; its runs go on elsewhere", self._lease.id)
        self._deliver()
        self._owner.lease_lost()
        self._starts.extendleft(reversed(batch.starts))
        self._under_way = None
        for attempt in count(1):
            try:
                await self._lease.reopen()
            except (psycopg.Error, DbosflowError, OSError) as error:
                logger.warning("no new lease yet: %s; trying again", _line(error))
                await self._lease.disconnect()
                await self._back_off(attempt)
            else:
                self._lease_is_over = False
                return

    async def _written(self, batch: Batch[R], started: Iterable[str]) -> None:
        if self.tripwire is None or not await self._dies(self.tripwire, batch, written=True):
            self._acknowledge(batch, started)

    def _acknowledge(self, batch: Batch[R], started: Iterable[str]) -> None:
        """The batch is durable: readers wake, peers are notified, and its runs may go on."""
        if self._statistics is not None:
            batch.count_in(self._statistics, time.monotonic() - self._gathered_at)
        topics = [topic for part in batch.slices for topic in part.topics()]
        if topics:
            self._announce(topics, at_once=any(part.is_awaited_elsewhere for part in batch.slices))
        new = set(started)
        parts: list[Slice[R] | Start] = [*batch.slices, *batch.starts]
        self._durable.extend((part, new) for part in parts)

    def fail_pending(self) -> None:
        """Fails what could not be written when the journal closes: starts are notified."""
        self._deliver()
        for start in (*(self._under_way.starts if self._under_way else ()), *self._starts):
            start.on_decided(LeaseLostError("the engine closed before the start was durable"))
        self._starts.clear()


def _log_trouble(batch: Batch[Any], error: Exception, plan: str) -> None:
    """A cut connection heals in a moment; what does not pass, such as a full disk, somebody has to look at."""
    level = logging.ERROR if batch.sent >= _OFTEN else logging.WARNING
    logger.log(level, "batch of %d runs waits: %s; %s", len(batch.slices), _line(error), plan)


def _unfit(error: Exception) -> SerializationError:
    return SerializationError(f"the database refused the data: {_line(error)}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
