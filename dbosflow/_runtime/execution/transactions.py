"""Users' transactions from their beginning to their end: each has a connection of the pool for itself.

Whatever the colour of its function is, the engine's loop begins and ends it. In between the connection belongs to the
function, on its thread or in its task.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.waiting import wait_async

from dbosflow._store import transaction
from dbosflow._store.user_connection import SyncUserConnection
from dbosflow._store.wire import is_stale
from dbosflow.errors import StepTimeoutError, TransactionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from psycopg.abc import PQGen

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.transactions import TransactionCommitter
    from dbosflow._runtime.process.transaction_pool import TransactionPool
    from dbosflow._runtime.runs.entries import Record
    from dbosflow._runtime.streams.transaction_writes import TransactionWrites
    from dbosflow._store.transaction import Witnessed
    from dbosflow._store.user_connection import AnyUserConnection
    from dbosflow.config import Settings
    from dbosflow.transaction_definitions import TransactionDef

T = TypeVar("T")

_WAIT_STEP = 0.5
"""Seconds: psycopg wakes up so often in a wait for a sync connection, for nothing."""


class Transactions:
    """Begins the transactions of an engine's runs."""

    def __init__(self, pool: TransactionPool, committer: TransactionCommitter[Run], settings: Settings) -> None:
        self._pool = pool
        self._committer = committer
        self._idle = settings.lease
        self._tasks: set[asyncio.Task[Any]] = set()
        """Ends of transactions that are under way, whose callers may be gone."""

    async def begin(
        self, definition: TransactionDef, attempt: str, keep: Callable[[Transaction], object]
    ) -> Transaction:
        """Begins a transaction. A free connection turns out to be broken here, if it is: then it takes another."""
        while True:
            connection = await self._pool.take(is_async=definition.is_async or definition.wraps_async)
            begun = Transaction(self, connection, definition)
            keep(begun)
            try:
                await begun.run(
                    transaction.begin(
                        connection,
                        isolation=definition.isolation,
                        read_only=definition.read_only,
                        idle=self._idle,
                        marker=self._committer.marker(attempt),
                    )
                )
            except psycopg.Error:
                await self.shielded(begun.over())
                if not begun.is_lost:
                    raise
            except BaseException:
                begun.abandon()
                raise
            else:
                begun.limit()
                return begun

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits ``work`` in a task of its own, which a cancellation of the caller does not reach."""
        task = asyncio.Task(work, loop=asyncio.get_running_loop(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def give_back(self, connection: AnyUserConnection) -> None:
        """Returns a connection to the pool."""
        await self._pool.give_back(connection)

    def abandon(self, connection: AnyUserConnection) -> None:
        """Counts off a connection that is never to be used again, and ends what it does."""
        self._pool.abandon()
        task = asyncio.Task(_ended(connection), loop=asyncio.get_running_loop(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def commit(
        self, begun: Transaction, run: Run, record: Record, writes: TransactionWrites | None
    ) -> Witnessed | None:
        """Commits a transaction, and returns its connection."""
        try:
            return await self._committer.commit(run, begun, record, writes)
        except psycopg.Error as error:
            if is_stale(error):
                begun.abandon()
            raise
        finally:
            await begun.over()

    async def close(self, limit: float) -> None:
        """Waits for the ends that are under way, and closes the pool."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit)
        await self._pool.close()


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Looks at the error of a task whose caller may be gone."""
    if not task.cancelled():
        task.exception()


class Transaction:
    """One transaction of a user's function."""

    def __init__(self, transactions: Transactions, link: AnyUserConnection, definition: TransactionDef) -> None:
        self._transactions = transactions
        self.link = link
        self._definition = definition
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = self._was_lost = False

    @property
    def argument(self) -> AnyUserConnection:
        """What the user's function gets."""
        return self.link

    @property
    def is_lost(self) -> bool:
        """Whether the connection does not work any more."""
        return self._was_lost if self._is_over else self.link.closed or self.link.pgconn.status == ConnStatus.BAD

    @property
    def expired(self) -> BaseException | None:
        """The error of a sync function whose time is over."""
        return self.link.is_over if isinstance(self.link, SyncUserConnection) else None

    async def run(self, generator: PQGen[T]) -> T:
        """Runs a generator on the connection, on the loop."""
        if isinstance(self.link, SyncUserConnection):
            return await wait_async(generator, self.link.pgconn.socket, _WAIT_STEP)
        return await self.link.wait(generator)

    # -- the time limit of a sync function; an async one is cancelled ------------------------------------------------

    def limit(self) -> None:
        """Begins the time of a sync function."""
        seconds = self._definition.timeout
        if seconds is not None and isinstance(self.link, SyncUserConnection):
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, self.link, seconds)

    def _expire(self, link: SyncUserConnection, seconds: float) -> None:
        msg = f"{self._definition} took longer than {seconds:g} s, its timeout: it is rolled back"
        link.is_over = StepTimeoutError(msg)
        asyncio.get_running_loop().run_in_executor(None, _cancel, link)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # -- its end -----------------------------------------------------------------------------------------------------

    async def commit(self, run: Run, record: Record, writes: TransactionWrites | None) -> Witnessed | None:
        """Commits it with its record, whatever becomes of the caller."""
        await self._check_body()
        return await self._transactions.shielded(self._transactions.commit(self, run, record, writes))

    async def commit_read_only(self) -> None:
        """Ends a transaction that has written nothing."""
        await self._check_body()
        await self._transactions.shielded(self._commit_read_only())

    async def _commit_read_only(self) -> None:
        try:
            await self.run(transaction.commit_read_only(self.link))
        finally:
            await self.over()

    async def _check_body(self) -> None:
        """Rolls back, and raises, if the function has left no transaction that could be committed."""
        self._stop_timer()
        error = self.expired or self._left_by_function()
        if error is not None:
            await self.roll_back()
            raise error

    def _left_by_function(self) -> TransactionError | None:
        status = self.link.pgconn.transaction_status
        if self.link.lock.locked() or status == TransactionStatus.ACTIVE:
            msg = (
                f"the function of {self._definition} has returned, but its connection is still in use, by a task or "
                "thread that it has begun: wait for it in the function"
            )
        elif status == TransactionStatus.INERROR:
            msg = (
                f"a statement of {self._definition} failed, and the function went on: Postgres has given the whole "
                "transaction up by then. Let the error through, or put the statement into "
                "`with connection.transaction():`, a savepoint"
            )
        elif status != TransactionStatus.INTRANS:
            msg = (
                f"the function of {self._definition} has ended its transaction by itself, or closed its connection: "
                "what it did before is outside of the step. Leave the end to the engine; for a part that may fail use "
                "`with connection.transaction():`"
            )
        else:
            return None
        return TransactionError(msg)

    async def roll_back(self) -> None:
        """Rolls it back. Raises nothing."""
        self._stop_timer()
        if self.link.lock.locked() or self.link.pgconn.transaction_status == TransactionStatus.ACTIVE:
            self.abandon()
        else:
            await self._transactions.shielded(self.over())

    async def over(self) -> None:
        """Returns the connection, rolled back unless the transaction is committed already."""
        if self._is_over:
            return
        self._is_over, self._was_lost = True, self.is_lost
        try:
            if not self._was_lost and self.link.pgconn.transaction_status != TransactionStatus.IDLE:
                with suppress(psycopg.Error):
                    await self.run(transaction.rollback(self.link))
        finally:
            await self._transactions.give_back(self.link)

    def abandon(self) -> None:
        """Ends it although its function may still be running."""
        self._stop_timer()
        if not self._is_over:
            self._is_over = True
            self._transactions.abandon(self.link)


def _cancel(link: AnyUserConnection) -> None:
    """Cancels the statement that is running, if there is one. Blocks."""
    with suppress(psycopg.Error, OSError):
        link.cancel()


async def _ended(connection: AnyUserConnection) -> None:
    """Ends a connection in whatever state: its statement is cancelled, and its socket shut.

    A connection that a thread may be using is not closed here: the thread would meet freed memory.
    """
    if isinstance(connection, SyncUserConnection):
        connection.is_abandoned = True
    with suppress(psycopg.Error, OSError, ValueError):
        await asyncio.to_thread(_cancel, connection)
        if isinstance(connection, SyncUserConnection):
            with socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
        else:
            await connection.close()
