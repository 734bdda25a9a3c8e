"""Sends a batch until it is durable, or no run of it is owned here any more.

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
            │             timeline ─► every run reloads (behind a pooler; else the worker's connection shows it)
            └─ refused for its data ─► slice by slice; a refused slice ends its run with a typed error; and if the
                          final frames of the run's streams are refused, too: without them
```

Nothing is guessed after a lost acknowledgement: every slice leaves a row that only this slice can write, under a key
fixed before the batch was sent, and that row decides. A late copy of a batch finds its keys taken or the gate shut.

Each answer names the runs that are to be cancelled; they are notified before they go on (``canceller``).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.journal.batch import Batch
from dbosflow._runtime.journal.slice import MOST_RECORDS, Slice
from dbosflow._runtime.journal.source import Source
from dbosflow._runtime.runs.entries import MOST_REFUSALS, Ending, Record, Suspension
from dbosflow._store.batch import is_durable, write_batch
from dbosflow._store.queries import is_refused
from dbosflow.errors import DbosflowError, SerializationError
from dbosflow.failures import dump_error
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import AsyncConnection

    from dbosflow._runtime.journal.owner import JournalOwner, Write
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._store.batch import BatchResult
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.journal")

_FIRST_PAUSE = 0.01
"""Seconds, doubled at each try: a cut connection can mostly be replaced at once."""
_LONGEST_PAUSE = 1.0
"""Seconds between two tries while the database is away: every durable operation waits for it to be back."""
_OFTEN = 5
"""How often a batch may be sent before what stops it is logged as an error, and not as a warning."""
_NOTIFY_PAUSE = 10.0
"""Seconds for which no hint follows a batch on its connection, after one that failed: its lock may be held for long."""
_MOST_LOST_PLACES = 1000
"""How often the end of an input may lose its offset to writers before its run reloads: then something else is wrong."""


R = TypeVar("R", bound=Source)


class CommittingJournal(Protocol[R]):
    """How the committer notifies the journal whose batches it sends."""

    async def written(self, batch: Batch[R], started: Iterable[str]) -> None:
        """The batch is durable, as its answer or a witness shows, and has inserted ``started``."""

    def acknowledge(self, batch: Batch[R], started: Iterable[str]) -> None:
        """The batch was durable before: readers are woken, and its runs may go on."""

    def deliver(self) -> None:
        """Lets runs go on from what is durable."""

    async def lease_lost(self, batch: Batch[R]) -> None:
        """The lease is dead: the runs of the batch go on elsewhere, and its starts wait for the next lease."""


class Committer(Generic[R]):
    """Sends the batches of one journal, one at a time."""

    def __init__(
        self,
        lease: WorkerLease,
        settings: Settings,
        owner: JournalOwner[R],
        journal: CommittingJournal[R],
        *,
        write: Write | None = None,
    ) -> None:
        self._write = write
        self._lease = lease
        self._settings = settings
        self._owner = owner
        self._journal = journal
        self._notifies_from = 0.0
        """From when on hints may follow a batch on its connection."""

    async def commit(self, batch: Batch[R]) -> None:
        """Sends ``batch`` until it is durable, or no run of it is owned here any more."""
        while not batch.empty:
            try:
                connection = await self._lease.connection()
                if stopped := batch.stopped_runs():  # to connect may be to find another timeline, and stop every run
                    batch = batch.without(stopped)
                    continue
                result = await self._send(connection, batch)
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
                    await self._journal.written(batch, frozenset())  # whether a start was the first is asked of its row
                    return
                continue
            self._report_cancel_requests(batch, result)
            if known:
                await self._journal.written(batch, result.started)
                return
            if not result.leased:
                await self._journal.lease_lost(batch)
                return
            batch = self._without_failed(batch, result)

    async def _send(self, connection: AsyncConnection[Any], batch: Batch[R]) -> BatchResult:
        """Sends a batch, and behind a lone one the hints for other processes."""
        lease, rows = self._lease, batch.rows()
        if batch.is_lone and batch.is_awaited_elsewhere and time.monotonic() >= self._notifies_from:
            rows.topics = batch.topics()
        batch.sent += 1
        result = await (self._write or write_batch)(
            connection, rows, lease.id, self._settings.schema, lease.hidden_timeline
        )
        batch.notified = bool(result.notified)
        if result.notified is False:
            self._notifies_from = time.monotonic() + _NOTIFY_PAUSE
        return result

    def _report_cancel_requests(self, batch: Batch[R], result: BatchResult) -> None:
        """Reports cancel requests before anything is delivered: then nothing begins that follows from it."""
        if result.cancelled:
            for part in batch.slices:
                request = result.cancelled.get(part.run.workflow_id)
                if request is not None:
                    self._owner.cancel_requested(part.run, request)

    async def _was_overtaken(self, batch: Batch[R], error: Exception) -> bool:
        """Whether another writer came first in the instant of the statement: the next snapshot shows that, so resend.

        Either a cancel, where the run was to end otherwise (nothing else in a batch can divide by zero); or an outside
        writer, whose value has the offset that the end of an input was to have. The slice with that end is sent alone,
        since the runs of one statement share its fate.
        """
        if isinstance(error, psycopg.errors.DivisionByZero):
            return batch.sent < _MOST_LOST_PLACES
        if not (isinstance(error, psycopg.errors.UniqueViolation) and batch.closes_inputs and len(batch.slices) == 1):
            return False
        return (
            batch.sent < _MOST_LOST_PLACES and not batch.starts and not (batch.sent > 1 and await self._is_seen(batch))
        )

    async def _durable_after(self, batch: Batch[R], error: Exception) -> bool:
        """Asks a witness, over a new connection if need be, after an error that leaves the batch's fate open."""
        _log_trouble(batch, error, "looking whether it is durable")
        await back_off(batch.sent)
        while True:
            try:
                return await self._is_seen(batch)
            except (psycopg.Error, DbosflowError, OSError) as again:
                await self._wait_for_database(batch, again)

    async def _is_seen(self, batch: Batch[R]) -> bool:
        """Whether a witness shows that the batch is durable. A refused witness decides nothing: the batch is resent."""
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
        await back_off(batch.sent)

    async def _settle_refused(self, batch: Batch[R], error: Exception) -> None:
        """Handles a batch in which the database or the driver refuses some data."""
        if batch.sent > 1 and isinstance(error, psycopg.errors.UniqueViolation) and await self._is_seen(batch):
            self._journal.acknowledge(batch, frozenset())
            self._journal.deliver()
            return
        parts = batch.split_off_inputs() if isinstance(error, psycopg.errors.UniqueViolation) else batch.split()
        if len(parts) > 1:
            for part in parts:
                await self.commit(part)
                self._journal.deliver()
            return
        if batch.starts:
            await self._settle_start(batch, error)
        elif batch.slices[0].leave_out_ends():  # whatever else is refused is so again
            await self.commit(batch)
        elif isinstance(error, psycopg.errors.UniqueViolation):
            self._say_other(batch.slices[0], error)
            self._owner.moved(batch.slices[0].run)
        else:
            await self._end_refused(batch.slices[0], error)

    async def _settle_start(self, batch: Batch[R], error: Exception) -> None:
        """Handles a refused start. If it is not the start but the end that is refused, the workflow fails like others.

        So the start is sent without the end, and the workflow begins again.
        """
        (start,) = batch.starts
        if start.leave_out_end():
            await self.commit(Batch([], [start]))
        else:
            start.on_decided(_unfit(error))

    def _say_other(self, part: Slice[R], error: Exception) -> None:
        """Says that somebody else has written one of the rows."""
        workflow_id = part.run.workflow_id
        if any(isinstance(entry, Record) and entry.kind is RecordKind.TRANSACTION for entry in part.entries):
            logger.warning("workflow %s: a transaction whose COMMIT nobody saw is durable after all", workflow_id)
        else:
            logger.error(
                "workflow %s: a row stands that this run did not write; please report it: %s", workflow_id, error
            )

    async def _end_refused(self, part: Slice[R], error: Exception) -> None:
        """Ends a run whose data is refused: without the data, with the reason. Each try contains less to refuse.

        In the end only the workflow's row is left. If even that is refused, the run is given up.
        """
        run, before = part.run, part.ending
        if isinstance(before, Suspension):
            logger.error("workflow %s cannot be suspended, and runs again: %s", run.workflow_id, line(error))
            self._owner.unwritable(run)
            return
        refusals = 1 if before is None else before.refusals + 1
        run.stop("the database refused its data")
        if refusals > MOST_REFUSALS:
            logger.critical(
                "workflow %s cannot be ended, and runs again with the next look for forgotten runs: %s",
                *(run.workflow_id, line(error)),
            )
            self._owner.unwritable(run)
            return
        if before is not None and not before.yields_to_cancel:
            ending = replace(before, output=None, error=None, refusals=refusals)
        else:
            unfit = _out_of_records(run) if isinstance(error, OverflowError) and part.exceeds_records else _unfit(error)
            ending = Ending(WorkflowStatus.FAILED, error=dump_error(unfit), refusals=refusals)
        await self.commit(Batch([Slice(run, [ending])], []))

    def _without_failed(self, batch: Batch[R], result: BatchResult) -> Batch[R]:
        """Returns the batch without the runs that shut the gate, by themselves or by another timeline; to be resent."""
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


async def back_off(sent: int) -> None:
    """Pauses before the next try; the more tries there were, the longer."""
    pause = min(_FIRST_PAUSE * 2 ** min(sent, 10), _LONGEST_PAUSE)
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)


def _log_trouble(batch: Batch[Any], error: Exception, plan: str) -> None:
    """Logs trouble: a cut connection heals in a moment; a lasting fault, such as a full disk, needs an operator."""
    level = logging.ERROR if batch.sent >= _OFTEN else logging.WARNING
    logger.log(level, "batch of %d runs waits: %s; %s", len(batch.slices), line(error), plan)


def _out_of_records(run: Source) -> SerializationError:
    return SerializationError(
        f"workflow {run.workflow_id!r} has had {MOST_RECORDS:,} records, over all its iterations, and none can follow: "
        "let another workflow go on from what it has come to"
    )


def _unfit(error: Exception) -> SerializationError:
    return SerializationError(f"the database refused the data: {line(error)}")


def line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
