"""Commits users' transactions: the last statement of each is a batch of one run, on the transaction's own connection.

```text
function over ─► the run's earlier entries: by the journal
                                  │
                    the run's turn: one of its transactions at a time, and the journal takes nothing of the run
                                  │
                    deferred constraints, last statement and COMMIT, in one round trip
                                  ├─► committed ──────────────► acknowledged, like a slice of the journal's
                                  ├─► a constraint waits for a lock ─► checked outside of the turn, and once more
                                  ├─► an error, the connection works: rolled back
                                  │        gate shut: why? ─► the run stops or reloads, or its function has ended
                                  │                           the transaction by itself
                                  └─► no answer ─► witness ─► there: acknowledged. Not there: nothing is committed
```

The witness first takes the run's row, for which it waits until the backend whose answer was lost is done, and then
reads the record with a newer snapshot. If the statement is still on its way after that, then the primary key refuses
either it, or the next attempt; the next attempt finds the record of the other one then, and the run reloads.

Nothing here is cancelled with its caller. It is the testable transaction of Frolund and Guerraoui, as in ``committer``,
with a lock in front.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg
from psycopg import errors

from dbosflow._runtime.journal.committer import back_off, line
from dbosflow._runtime.journal.slice import Slice
from dbosflow._runtime.journal.source import CommittingSource
from dbosflow._store import transaction
from dbosflow._store.transaction import ChecksFailedError, ChecksWaitError, Owned
from dbosflow.errors import DbosflowError, TransactionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from psycopg.abc import PQGen
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.journal.journal import Journal
    from dbosflow._runtime.journal.owner import JournalOwner
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._runtime.runs.entries import Record
    from dbosflow._runtime.streams.transaction_writes import TransactionWrites
    from dbosflow._store.batch_rows import Row
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.transaction import Link, Witnessed
    from dbosflow.config import Settings

R = TypeVar("R", bound=CommittingSource)
T = TypeVar("T")


class LinkPort(Protocol):
    """The connection of a transaction, driven on the loop whatever its colour is."""

    @property
    def link(self) -> Link:
        """The psycopg connection."""

    @property
    def is_lost(self) -> bool:
        """Whether it does not work any more."""

    async def run(self, generator: PQGen[T], /) -> T:
        """Runs a generator of ``_store.transaction`` to its end."""


class TransactionCommitter(Generic[R]):
    """Commits the transactions of one worker's runs."""

    def __init__(
        self,
        journal: Journal[R],
        lease: WorkerLease,
        settings: Settings,
        owner: JournalOwner[R],
        pool: AsyncConnectionPool[Any],
    ) -> None:
        self._journal = journal
        self._lease = lease
        self._schema = settings.schema
        self._owner = owner
        self._pool = pool
        self._turns: dict[R, tuple[asyncio.Lock, int]] = {}
        """The lock of each run that commits, and how many have it or wait for it."""

    def marker(self, attempt: str) -> str:
        """What the last statement of an attempt demands of its transaction."""
        return f"{self._lease.id.hex}.{attempt}"

    async def commit(
        self, run: R, port: LinkPort, record: Record, writes: TransactionWrites | None
    ) -> Witnessed | None:
        """Commits a transaction with its record, and hands both on; if only a witness showed it, returns the record.

        Raises:
            RunStopped: the run is over for this process. The transaction may be committed all the same.
            TransactionError: the function has ended its transaction by itself.
            psycopg.Error: nothing is committed: an error of a constraint, a conflict, or the connection is lost.
        """
        if writes is not None:
            writes.begin_commit()
        run.buffer.elsewhere += 1  # so no outcome that comes from here on is handed on before that of the transaction
        try:
            try:
                return await self._commit_in_turn(run, port, record, writes)
            except ChecksWaitError:
                await port.run(transaction.check_apart(port.link))
                return await self._commit_in_turn(run, port, record, writes)
        except BaseException:
            if writes is not None:
                writes.withdraw()
            raise
        finally:
            run.buffer.elsewhere -= 1

    async def _commit_in_turn(
        self, run: R, port: LinkPort, record: Record, writes: TransactionWrites | None
    ) -> Witnessed | None:
        await self._flushed(run)
        async with self._turn(run):
            return await self._commit(run, port, record, writes)

    async def _flushed(self, run: R) -> None:
        """Waits until what the run has buffered is durable: nothing of it may become so later than the record.

        For what is under way already, the turn waits: a barrier behind it would be a batch of its own.
        """
        if run.buffer.is_pending:
            durable = asyncio.get_running_loop().create_future()
            run.add_barrier(durable)
            await durable

    @asynccontextmanager
    async def _turn(self, run: R) -> AsyncIterator[None]:
        lock, users = self._turns.get(run, (asyncio.Lock(), 0))
        self._turns[run] = (lock, users + 1)
        try:
            async with lock:
                try:
                    await self._journal.hold(run)
                    yield
                finally:
                    self._journal.let_go(run)
        finally:
            lock, users = self._turns[run]
            if users > 1:
                self._turns[run] = (lock, users - 1)
            else:
                del self._turns[run]

    async def _commit(
        self, run: R, port: LinkPort, record: Record, writes: TransactionWrites | None
    ) -> Witnessed | None:
        began = time.monotonic()
        part = self._part(run, record, writes)
        if await self._journal.dies(part, written=False):
            raise _stopped(run)
        size, waiter = sum(entry.size for entry in part.entries), record.waiter
        assert waiter is not None
        run.buffer.expect(waiter, size)
        try:
            found = await self._send(run, port, part, record)
        except BaseException:
            run.buffer.forget(waiter, size)
            raise
        if await self._journal.dies(part, written=True):
            raise _stopped(run)
        if writes is not None:
            writes.committed()
        self._journal.committed_elsewhere(part, time.monotonic() - began)
        return found

    def _part(self, run: R, record: Record, writes: TransactionWrites | None) -> Slice[R]:
        """The slice of the run. From here on its place among the run's records and its offsets are fixed."""
        if run.stopping is not None:
            raise run.stopping
        if writes is None:
            return Slice(run, [record])
        writes.begin_statement()
        return Slice(run, [*writes.entries, record])

    async def _send(self, run: R, port: LinkPort, part: Slice[R], record: Record) -> Witnessed | None:
        lease = self._lease
        owned = Owned(run.workflow_id, run.epoch, lease.id, self.marker(record.attempt or ""), lease.timeline)
        tables: dict[str, Any] = {"record": part.records} | ({"block": part.blocks} if part.blocks else {})
        try:
            request = await send_commit(port.link, tables, port, self._schema, owned)
        except ChecksFailedError as failed:
            raise failed.error from None
        except psycopg.Error as error:
            if isinstance(error, errors.DivisionByZero):
                await self._explain_shut_gate(run)
            elif port.is_lost or isinstance(error, errors.UniqueViolation):
                return await self._witnessed(run, record, error)
            raise
        if request is not None:
            self._owner.cancel_requested(run, request)
        return None

    async def _witnessed(self, run: R, record: Record, error: Exception) -> Witnessed:
        """The record, if it is durable; else raises ``error``, or stops the run."""
        found = await self._look(run, record.key)
        if found is not None and (found.epoch, found.attempt) == (run.epoch, record.attempt):
            return found
        if found is not None or isinstance(error, errors.UniqueViolation):  # an earlier attempt's came late
            self._owner.moved(run)
            raise _stopped(run) from error
        raise error

    async def _look(self, run: R, key: str) -> Witnessed | None:
        tries = 0
        while True:
            if run.stopping is not None:
                raise run.stopping
            try:
                async with self._pool.connection() as connection:
                    return await transaction.witness(connection, self._schema, workflow_id=run.workflow_id, key=key)
            except (psycopg.Error, DbosflowError, OSError):
                tries += 1
                await back_off(tries)

    async def _explain_shut_gate(self, run: R) -> None:
        """Stops the run if it is owned elsewhere, or the server is another one; else its function is to blame."""
        try:
            async with self._lease.lock:
                connection = await self._lease.connection()
                await self._lease.check_timeline(connection)  # on another one, every run reloads
                mine = await transaction.is_mine(
                    connection,
                    self._schema,
                    workflow_id=run.workflow_id,
                    worker_id=self._lease.id,
                    epoch=run.epoch,
                )
        except (psycopg.Error, DbosflowError, OSError) as error:
            run.stop(f"nobody says why its transaction was refused: {line(error)}")
            self._owner.moved(run)
            raise _stopped(run) from error
        if run.stopping is not None:
            raise run.stopping
        if not mine:
            self._owner.lost(run)
            raise _stopped(run)
        msg = (
            "the function of a transaction has ended its transaction by itself, with COMMIT or ROLLBACK: what it did "
            "before that is outside of the step, and the rest is rolled back. Leave the end to the engine; for a part "
            "that may fail use `with connection.transaction():`"
        )
        raise TransactionError(msg)


async def send_commit(
    link: Link, tables: dict[str, Sequence[Row]], port: LinkPort, schema: str, owned: Owned
) -> CancelRequest | None:
    """Sends the last statement and COMMIT; see ``_store.transaction.commit``."""
    return await port.run(transaction.commit(link, schema, owned, tables))


def _stopped(run: CommittingSource) -> BaseException:
    if run.stopping is None:
        run.stop("its transaction found the tables changed")
    assert run.stopping is not None
    return run.stopping
