"""Claims while very much waits: ``python -m tests.protocol.partition_growth [--rows N]``.

One claim of a free slot at a time, as a worker makes it, until it is committed; what was claimed is queued again after
each. The medians with nothing beside it, and with so many workflows that wait in a full partition of the same queue, in
a paused queue, and in 1,000 and 10,000 partitions. Then a tenant with very many workflows, and 99 with ten each.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.server import own_server
from dbosflow import Engine
from dbosflow._records.pins import partition_of
from dbosflow._store import queue
from tests.protocol.schedules import NAME, SCHEMA, Database
from tests.protocol.test_queue_limits import end, limited

if TYPE_CHECKING:
    from dbosflow._store.queue import Room
    from dbosflow._store.workflow import Claimed
    from tests.protocol.schedules import WorkerLease

TIMES = 300
_WARM_UP = 30
SMALL, EACH = 99, 10

_WAITING = """
INSERT INTO dbosflow.workflow (id, name, status, queue, input)
SELECT %s || n, %s, 'queued', %s || chr(31) || %s || (n %% %s), '{}' FROM generate_series(1, %s) AS n
"""


async def waiting(db: Database, name: str, key: str, count: int, partitions: int = 1) -> None:
    """So many workflows, divided among partitions."""
    await db.rows(_WAITING, f"{name} {key} ", NAME, name, key, partitions, count)


async def settled(db: Database) -> None:
    """What autovacuum and the next checkpoint would do some time later, in the middle of a measurement."""
    await db.rows("VACUUM (ANALYZE, FREEZE) dbosflow.workflow")
    await db.rows("CHECKPOINT")


async def claim(lease: WorkerLease, name: str, limit: int = 1) -> tuple[list[Claimed], Room | None]:
    """One claim."""
    return await queue.claim(lease.connection, SCHEMA, worker_id=lease.id, queue=name, names=[NAME], limit=limit)


async def timed(db: Database, lease: WorkerLease, name: str, *, takes: int = 1) -> float:
    """The median of a claim, in milliseconds."""
    took: list[float] = []
    for _ in range(TIMES + _WARM_UP):
        began = time.perf_counter()
        claimed, _ = await claim(lease, name)
        took.append(1000 * (time.perf_counter() - began))
        assert len(claimed) == takes
        for one in claimed:
            again = "UPDATE dbosflow.workflow SET status = 'queued', worker_id = NULL, epoch = 0 WHERE id = %s"
            await db.rows(again, one.id)
    return statistics.median(took[_WARM_UP:])


async def beside_much(db: Database, rows: int) -> None:
    """A claim of one queue, while very much waits there and elsewhere."""
    lease = await db.lease()
    await limited(db, "q", partition_concurrency=2)
    await limited(db, "paused", paused=True)
    await waiting(db, "q", "small", 50, 10)
    await settled(db)
    empty = await timed(db, lease, "q")
    print(f"nothing beside it: {empty:.2f} ms", flush=True)
    await waiting(db, "paused", "p", rows)
    await settled(db)
    took = await timed(db, lease, "q")
    print(f"{rows:,} in a paused queue: {took:.2f} ms, {took / empty:.2f} times", flush=True)
    took = await timed(db, lease, "paused", takes=0)
    print(f"  a look at the paused queue: {took:.2f} ms", flush=True)
    await waiting(db, "q", "full", rows)
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, epoch, slot, worker_id)
           SELECT 'r' || n, %s, 'running', 'q' || chr(31) || 'full0', '{}', 1, 'q', %s
           FROM generate_series(1, 2) AS n""",
        *(NAME, lease.id),
    )
    await settled(db)
    took = await timed(db, lease, "q")
    print(f"{rows:,} in a full partition of it, too: {took:.2f} ms, {took / empty:.2f} times", flush=True)


async def in_partitions(db: Database) -> None:
    """A claim of a queue with so many partitions, all with room; and with all but one full."""
    lease = await db.lease()
    found: dict[int, float] = {}
    for count in (10, 1_000, 10_000):
        name = f"of {count}"
        await limited(db, name, partition_concurrency=2)
        await waiting(db, name, "p", 5 * count, count)
        await settled(db)
        found[count] = await timed(db, lease, name)
        print(f"{count:,} partitions: {found[count]:.2f} ms", flush=True)
    print(f"10,000 of 1,000: {found[10_000] / found[1_000]:.2f} times")
    for count in (1_000, 10_000):
        await db.rows(
            """INSERT INTO dbosflow.workflow (id, name, status, queue, input, epoch, slot, worker_id)
               SELECT %s || '-' || n, %s, 'running', %s || chr(31) || 'p' || (n %% %s), '{}', 1, %s, %s
               FROM generate_series(1, 2 * %s) AS n""",
            *(f"r{count}", NAME, f"of {count}", count, f"of {count}", lease.id, count),
        )
        await settled(db)
        found[count] = await timed(db, lease, f"of {count}", takes=0)
        print(f"{count:,} full partitions, a look at 64 of them: {found[count]:.2f} ms", flush=True)
    print(f"10,000 of 1,000: {found[10_000] / found[1_000]:.2f} times")


async def tenants(db: Database, large: int) -> None:
    """How many of the large one are taken until the small ones are done."""
    lease = await db.lease()
    await limited(db, "fair")
    await waiting(db, "fair", "large", large)
    await waiting(db, "fair", "tenant", SMALL * EACH, SMALL)
    left, of_large, claims = SMALL * EACH, 0, 0
    while left:
        claimed, _ = await claim(lease, "fair", 10)
        await end(lease, *claimed)
        small = sum(partition_of(one.queue) != "large0" for one in claimed)
        left, of_large, claims = left - small, of_large + len(claimed) - small, claims + 1
    print(f"{SMALL} tenants of {EACH} were done after {of_large} of the one with {large:,}, in {claims} claims")


async def measured(url: str, rows: int) -> None:
    """All of it."""
    async with Engine(url, executes=False):
        pass  # makes the tables
    async with Database(url) as db:
        await in_partitions(db)
        await tenants(db, min(rows, 100_000))
        await beside_much(db, rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="how much waits (1,000,000)")
    options = parser.parse_args()
    with own_server() as url:
        asyncio.run(measured(url, options.rows))


if __name__ == "__main__":
    main()
