"""Claims of queues with limits, by several connections at a time: what runs never exceeds a limit, and nobody waits."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from dbosflow._runtime.queues.limits import settle
from dbosflow._store import queue
from tests.protocol.queue_watch import beyond, watch
from tests.protocol.schedules import NAME, SCHEMA, Slice

if TYPE_CHECKING:
    from dbosflow._store.queue import Room
    from dbosflow._store.workflow import Claimed
    from tests.protocol.schedules import Database, WorkerLease

CLAIMERS = 6
LIMIT = 3


async def limited(db: Database, name: str = "q", **limits: object) -> None:
    """Sets limits of a queue."""
    async with await db.connect() as connection:
        await queue.apply(connection, SCHEMA, name, limits)
        await settle(connection, SCHEMA, name)


async def waiting(db: Database, count: int, name: str = "q", prefix: str = "w") -> None:
    """So many workflows that wait."""
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input)
           SELECT %s || n, %s, 'queued', %s, '{}' FROM generate_series(1, %s) AS n""",
        *(prefix, NAME, name, count),
    )


async def claim(lease: WorkerLease, limit: int = 10, name: str = "q") -> tuple[list[Claimed], Room | None]:
    """One claim of a queue with limits."""
    return await queue.claim(lease.connection, SCHEMA, worker_id=lease.id, queue=name, names=[NAME], limit=limit)


async def end(lease: WorkerLease, *claimed: Claimed) -> None:
    """Ends what was claimed."""
    await lease.write(*(Slice(one.id, one.epoch).end() for one in claimed))


async def test_six_claimers_never_run_more_than_the_limit(db: Database) -> None:
    """Each end lets one more in, whoever claims it; what was enqueued is run once."""
    await limited(db, concurrency=LIMIT)
    await watch(db)
    await waiting(db, 300)
    left, busy = 300, 0
    dice = random.Random(1)

    async def work() -> None:
        nonlocal left, busy
        lease = await db.lease()
        while left:
            claimed, room = await claim(lease, limit=dice.randint(1, 5))
            assert room is not None
            busy += room.is_busy
            await asyncio.sleep(0)
            for one in claimed:
                await end(lease, one)
                left -= 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(work() for _ in range(CLAIMERS)))
    assert await beyond(db) == []
    assert busy, "the claimers never met"
    assert await db.rows("SELECT count(*) FROM dbosflow.workflow WHERE status = 'succeeded' AND epoch = 1") == [(300,)]
