"""Death in two statements, what goes back to its queue, and how often before a workflow is parked."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

from psycopg import IsolationLevel

from dbosflow._store import worker, workflow
from tests.protocol.schedules import NAME, SCHEMA, Database, Slice

if TYPE_CHECKING:
    from uuid import UUID

    from tests.protocol.schedules import WorkerLease

TAKEOVERS = 40
LARGE = f'"{os.urandom(400_000).hex()}"'


async def test_a_takeover_at_any_moment_loads_every_record_there_will_be(db: Database) -> None:
    """A busy owner with large records, a death at random: nothing is committed behind the new owner's back."""
    new = await db.lease()
    chance = random.Random(1)
    for number in range(TAKEOVERS):
        old = await db.lease()
        workflow_id = f"w{number}"
        await old.start(workflow_id)
        writing = asyncio.create_task(_write_until_lost(old, workflow_id))
        await asyncio.sleep(chance.uniform(0, 0.05))
        while not await db.reclaim(old):
            pass
        assert await db.requeue() == {workflow_id: "queued"}
        (claimed,) = await new.claim()
        history = await db.history(workflow_id)
        acknowledged = await writing
        keys, blocks = await db.stored(workflow_id)
        assert claimed.epoch == 3
        assert set(history.records) == keys == {f"s{step}" for step in range(acknowledged)}
        assert history.tails.get("out", 0) == len(blocks) == acknowledged


async def _write_until_lost(lease: WorkerLease, workflow_id: str) -> int:
    """How many batches were acknowledged. Each takes some time between its snapshot and its commit."""
    written = 0
    while True:
        part = Slice(workflow_id).record(f"s{written}", LARGE, seq=written).values(written)
        if not (await lease.write(part)).written:
            return written
        written += 1


async def test_a_claim_under_way_keeps_its_worker_alive(db: Database) -> None:
    """A death that came between its snapshot and its commit would leave the run with a dead owner."""
    old, new = await db.lease(), await db.lease()
    await _enqueue(db, "w")
    await old.connection.execute("BEGIN")
    assert [one.id for one in await old.claim()] == ["w"]
    assert await db.reclaim(old) == set()
    assert await db.requeue() == {}
    await old.connection.execute("COMMIT")
    assert await db.reclaim(old) == {old.id}
    assert await db.requeue() == {"w": "queued"}
    assert [(one.id, one.epoch) for one in await new.claim()] == [("w", 3)]


async def test_a_requeue_with_the_deaths_own_snapshot_misses_a_claim_and_a_later_one_mends_it(db: Database) -> None:
    """Why death is two statements, and why the second asks for the runs of every dead worker."""
    old = await db.lease()
    await _enqueue(db, "w")
    reclaimer = await db.connect(autocommit=False)
    await reclaimer.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    seen = await worker.survey(reclaimer, SCHEMA)  # takes the snapshot that the whole transaction has
    assert [one.id for one in await old.claim()] == ["w"]
    assert await worker.mark_dead(reclaimer, SCHEMA, seen, "expired") == {old.id}
    assert await workflow.requeue(reclaimer, SCHEMA, max_recoveries=10) == []
    await reclaimer.commit()
    assert await db.workflow("w") == ("running", old.id, 1)
    assert await db.requeue() == {"w": "queued"}


async def test_two_reclaimers_return_a_run_once(db: Database) -> None:
    """The second one skips what the first has under way, and finds nothing after it."""
    lease = await db.lease()
    await lease.start("a", "b")
    assert await db.reclaim(lease) == {lease.id}
    first = await db.connect(autocommit=False)
    returned = await workflow.requeue(first, SCHEMA, max_recoveries=10)
    assert {row["id"] for row in returned} == {"a", "b"}
    assert await db.requeue() == {}
    await first.commit()
    assert await db.requeue() == {}
    assert await db.workflow("a") == ("queued", None, 2)
    assert await db.rows("SELECT recoveries FROM dbosflow.workflow") == [(1,), (1,)]


async def test_a_workflow_that_kills_its_owners_is_parked(db: Database) -> None:
    """After so many deaths in a row without a new record; it keeps what it has, and says why."""
    for number in range(1, 4):
        lease = await db.lease()
        if number == 1:
            await lease.start("w")
            await lease.write(Slice("w").record("a"))
        else:
            assert [one.recoveries for one in await lease.claim()] == [number - 1]
        assert await db.reclaim(lease) == {lease.id}
        assert await db.requeue(max_recoveries=3) == {"w": "blocked" if number == 3 else "queued"}
    assert await (await db.lease()).claim() == []
    ((error, recoveries, ended_at),) = await db.rows(
        "SELECT error->>'message', recoveries, ended_at FROM dbosflow.workflow"
    )
    assert error == "its workers died 3 times in a row without a new record"
    assert (recoveries, ended_at) == (3, None)
    assert (await db.stored("w"))[0] == {"a"}


async def test_a_new_record_makes_the_count_begin_anew(db: Database) -> None:
    """A workflow that gets on is not the one that kills its owners."""
    for number in range(6):
        lease = await db.lease()
        if number == 0:
            await lease.start("w")
        else:
            (claimed,) = await lease.claim()
            assert claimed.recoveries == 1
            assert (await lease.write(Slice("w", claimed.epoch).record(f"s{number}", seq=number))).written
        await db.reclaim(lease)
        assert await db.requeue(max_recoveries=2) == {"w": "queued"}


async def test_a_released_worker_counts_for_nothing(db: Database) -> None:
    """Deploys are no crashes, and forgive those before them: ten in a row park nobody."""
    for number in range(8):
        lease = await db.lease()
        if number == 0:
            await lease.start("w")
        else:
            (claimed,) = await lease.claim()
            assert claimed.recoveries == number % 2
        if number % 2:
            await worker.release(lease.connection, SCHEMA, lease.id)
        else:
            await db.reclaim(lease)
        assert await db.requeue(max_recoveries=2) == {"w": "queued"}


async def test_a_worker_is_forgotten_only_when_it_owns_nothing(db: Database) -> None:
    """Its row is what a requeue finds its runs by."""
    lease, idle = await db.lease(), await db.lease()
    await lease.start("w")
    assert await db.reclaim(lease, idle) == {lease.id, idle.id}
    await db.rows("UPDATE dbosflow.worker SET ended_at = now() - interval '2 days'")
    await worker.forget(db.admin, SCHEMA)
    assert await _workers(db) == {lease.id}
    assert await db.requeue() == {"w": "queued"}
    await worker.forget(db.admin, SCHEMA)
    assert await _workers(db) == set()


async def _workers(db: Database) -> set[UUID]:
    return {worker_id for (worker_id,) in await db.rows("SELECT id FROM dbosflow.worker")}


async def _enqueue(db: Database, workflow_id: str) -> None:
    await workflow.enqueue(db.admin, SCHEMA, [workflow.Enqueued(workflow_id, NAME, "", 0, "{}")])
