"""A user's transaction is fenced by its run's own row: whatever comes in between, its rows are there with its record.

The schedules are those in which the fence of a batch, which is the lease's row, let rows through without their record.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._store import transaction, workflow
from dbosflow._store.transaction import ChecksFailedError, ChecksWaitError, Owned
from tests.protocol.schedules import SCHEMA, Database, Slice, WorkerLease

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LEVELS = ("read committed", "repeatable read", "serializable")
each_level = pytest.mark.parametrize("isolation", LEVELS)
MARKER = "m.1.1"


class UserTransaction:
    """A transaction with a row of the user's, at epoch 1 of workflow ``w``."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], lease: WorkerLease) -> None:
        self.connection = connection
        self._lease = lease

    async def begin(self, isolation: str) -> None:
        link = self.connection
        await link.wait(transaction.begin(link, isolation=isolation, read_only=False, idle=10, marker=MARKER))
        await link.execute("INSERT INTO public.bank VALUES ('w')")

    async def last(self) -> None:
        """The last statement alone."""
        part, link = Slice("w").record("tx#0").values(0, 2), self.connection
        owned = Owned("w", 1, self._lease.id, MARKER, None)
        tables: dict[str, Any] = {"record": part.records, "block": part.blocks}
        original, transaction._COMMIT = transaction._COMMIT, b"SELECT 1"
        try:
            await link.wait(transaction.commit(link, SCHEMA, owned, tables))
        finally:
            transaction._COMMIT = original

    async def commit(self) -> None:
        """The last statement and COMMIT."""
        part, link = Slice("w").record("tx#0"), self.connection
        owned = Owned("w", 1, self._lease.id, MARKER, None)
        await link.wait(transaction.commit(link, SCHEMA, owned, {"record": part.records}))

    async def end(self, how: str = "COMMIT") -> None:
        await self.connection.execute(how.encode())


async def begun(db: Database, isolation: str) -> tuple[WorkerLease, UserTransaction]:
    await db.admin.execute("CREATE TABLE IF NOT EXISTS public.bank (id text)")
    lease = await (await db.lease()).start("w")
    made = UserTransaction(await db.connect(), lease)
    await made.begin(isolation)
    return lease, made


async def money(db: Database) -> int:
    cursor = await db.admin.execute("SELECT count(*) FROM public.bank")
    (count,) = await cursor.fetchone() or (0,)
    return int(count)


async def releases(db: Database, lease: WorkerLease) -> bool:
    return bool(await workflow.release(lease.connection, SCHEMA, lease.id, [("w", 1)]))


async def reloads(db: Database, lease: WorkerLease) -> bool:
    try:
        return bool(await workflow.renew_epoch(lease.connection, SCHEMA, workflow_id="w", worker_id=lease.id, epoch=1))
    except workflow.RowLockedError:
        return False


async def adopts(db: Database, lease: WorkerLease) -> bool:
    return bool(await workflow.adopt(lease.connection, SCHEMA, worker_id=lease.id, known=[]))


async def dies(db: Database, lease: WorkerLease) -> bool:
    await db.reclaim(lease)
    return bool(await db.requeue())


CHANGES: dict[str, Callable[[Database, WorkerLease], Awaitable[bool]]] = {
    "release": releases,
    "reload": reloads,
    "adopt": adopts,
    "death": dies,
}
each_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@each_level
@each_change
async def test_behind_the_last_statement_no_owner_changes_before_the_commit(
    db: Database, change: Callable[[Database, WorkerLease], Awaitable[bool]], isolation: str
) -> None:
    """Nobody waits for the COMMIT either: the row is skipped, and the next look changes it. The next owner sees all."""
    lease, made = await begun(db, isolation)
    await made.last()
    assert not await asyncio.wait_for(change(db, lease), 60)
    await made.end()
    if change is dies:
        assert await db.requeue()
    else:
        assert await change(db, lease)
    assert await db.stored("w") == ({"tx#0"}, [(0, 2, "values")])
    assert await money(db) == 1


@each_level
@each_change
async def test_behind_a_change_of_the_owner_neither_rows_nor_record_are_committed(
    db: Database, change: Callable[[Database, WorkerLease], Awaitable[bool]], isolation: str
) -> None:
    """However old the transaction's snapshot is: a shut gate raises, and COMMIT is never run."""
    lease, made = await begun(db, isolation)
    assert await change(db, lease)
    with pytest.raises((psycopg.errors.DivisionByZero, psycopg.errors.SerializationFailure)):
        await made.commit()
    await made.end("ROLLBACK")
    assert await db.stored("w") == (set(), [])
    assert await money(db) == 0


@each_level
async def test_renewals_and_other_batches_of_the_worker_hold_no_transaction_up(db: Database, isolation: str) -> None:
    """In either order, and the transaction holds none of them up."""
    lease, made = await begun(db, isolation)
    await db.admin.execute("UPDATE dbosflow.worker SET renewed_at = now()")
    assert (await lease.write(Slice("w").values(0, 1, key="other"))).written
    await made.last()
    await asyncio.wait_for(db.admin.execute("UPDATE dbosflow.worker SET renewed_at = now()"), 60)
    assert (await asyncio.wait_for(lease.start("another"), 60)) is lease
    await made.end()
    assert await money(db) == 1


async def test_a_marker_that_is_gone_shuts_the_gate(db: Database) -> None:
    """The function has committed, and begun another transaction."""
    _, made = await begun(db, "read committed")
    await made.end()
    await made.connection.execute("BEGIN")
    await made.connection.execute("INSERT INTO public.bank VALUES ('w')")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await made.commit()
    await made.end("ROLLBACK")
    assert await db.stored("w") == (set(), [])
    assert await money(db) == 1


async def deferred_to(db: Database, lease: WorkerLease) -> UserTransaction:
    """A transaction that refers to a row of the user's, which is looked for in the end."""
    await db.admin.execute(
        "CREATE TABLE public.holder (id text PRIMARY KEY);"
        "CREATE TABLE public.deposit (id text REFERENCES public.holder DEFERRABLE INITIALLY DEFERRED)"
    )
    await db.admin.execute("INSERT INTO public.holder VALUES ('ann')")
    made = UserTransaction(await db.connect(), lease)
    await made.begin("read committed")
    await made.connection.execute("INSERT INTO public.deposit VALUES ('ann')")
    return made


async def test_a_deferred_constraint_that_has_to_wait_is_checked_apart(db: Database) -> None:
    """What the function has done stays: the transaction goes on where it was."""
    lease, _ = await begun(db, "read committed")
    made, holder = await deferred_to(db, lease), await db.connect()
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM public.holder FOR UPDATE")
    with pytest.raises(ChecksWaitError):
        await made.commit()
    assert await db.stored("w") == (set(), [])
    checking = asyncio.ensure_future(made.connection.wait(transaction.check_apart(made.connection)))
    await db.waiting(made.connection)
    await holder.execute("COMMIT")
    await asyncio.wait_for(checking, 60)
    await made.commit()
    assert await db.stored("w") == ({"tx#0"}, [])
    assert await money(db) == 1


async def test_a_violated_deferred_constraint_is_told_from_a_shut_gate(db: Database) -> None:
    """The gate is shut by a division by zero, and such an error a user's own trigger may raise, too."""
    lease, _ = await begun(db, "read committed")
    made = await deferred_to(db, lease)
    await made.connection.execute("DELETE FROM public.holder")
    with pytest.raises(ChecksFailedError) as failed:
        await made.commit()
    assert isinstance(failed.value.error, psycopg.errors.ForeignKeyViolation)
    await made.end("ROLLBACK")
    assert await money(db) == 0


async def test_a_second_record_under_a_key_rolls_the_rows_back(db: Database) -> None:
    """A late copy of a transaction, whose COMMIT nobody saw, and the next attempt: one of them is committed."""
    lease, made = await begun(db, "read committed")
    other = UserTransaction(await db.connect(), lease)
    await other.begin("read committed")
    await made.commit()
    with pytest.raises(psycopg.errors.UniqueViolation):
        await other.commit()
    await other.end("ROLLBACK")
    assert await money(db) == 1


async def test_the_witness_waits_for_a_commit_that_is_under_way(db: Database) -> None:
    """Asked before, it would say that nothing is there, and the function would run beside its own ghost."""
    lease, made = await begun(db, "read committed")
    await made.last()
    asking = asyncio.ensure_future(transaction.witness(lease.connection, SCHEMA, workflow_id="w", key="tx#0"))
    await db.waiting(lease.connection)
    await made.end()
    found = await asyncio.wait_for(asking, 60)
    assert found is not None
    assert (found.epoch, found.attempt, found.output) == (1, "1.1", "1")
    assert await transaction.witness(lease.connection, SCHEMA, workflow_id="w", key="other") is None
