"""Rates of partitions, beside that of their queue: who is short of units is passed over, and has its time."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any, cast

from dbosflow._records.pins import partition_of, stored_queue
from dbosflow._runtime.queues.limits import QueueLimits
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._store import queue
from dbosflow._store.notify import limits_topic
from tests.protocol.schedules import NAME, PATIENCE, SCHEMA
from tests.protocol.test_partitions import claim, enqueued, keys
from tests.protocol.test_queue_limits import end, limited

if TYPE_CHECKING:
    from tests.protocol.schedules import Database

SLOW: dict[str, Any] = {"partition_rate_count": 1, "partition_rate_period": 1000.0, "partition_rate_burst": 3}
"""Three units of each partition at once, and then one in a thousand seconds."""
ROWS = (
    "SELECT key, round(extract(epoch FROM next_at - now()) / 1000)::integer FROM dbosflow.partition_rate ORDER BY key"
)


async def later(db: Database, seconds: float) -> None:
    """As if so much time had passed for all partitions."""
    await db.rows(
        """UPDATE dbosflow.partition_rate SET next_at = next_at - %s * interval '1 second',
               moved_at = moved_at - %s * interval '1 second' RETURNING 1""",
        *(seconds, seconds),
    )


async def test_a_partition_at_its_rate_is_passed_over_and_tells_when_to_come_again(db: Database) -> None:
    """The others have their turn; what has begun before needs no units; where nothing may begin, nothing is locked."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await enqueued(db, "a", 10)
    await enqueued(db, "b", 1)
    assert keys((await claim(lease, limit=9))[0]) == [*"aaab"]
    await enqueued(db, None, 4)
    assert keys((await claim(lease, limit=9))[0]) == ["", "", ""]
    claimed, room = await claim(lease, limit=9)
    assert (claimed, room.locked, room.is_ready, room.is_held, room.is_full) == ([], False, False, False, False)
    short = json.loads(room.short_for or "")
    assert short.keys() == {"", "a"}
    assert all(900 < seconds <= 1000 for seconds in short.values())
    await db.rows("UPDATE dbosflow.workflow SET epoch = 1, priority = -1 WHERE id = 'a-7'")
    assert [one.id for one in (await claim(lease, limit=9))[0]] == ["a-7"]
    await later(db, 1000)
    assert keys((await claim(lease, limit=9))[0]) == ["", "a"]
    assert await db.rows(ROWS) == [("", 3), ("a", 3), ("b", 0)]


async def test_both_rates_hold_and_what_one_holds_up_takes_nothing_from_the_other(db: Database) -> None:
    """Units, too: one of more than the burst of its partition begins when nothing of that is taken."""
    lease = await db.lease()
    await limited(db, **SLOW, rate_count=1, rate_period=1000.0, rate_burst=8)
    for key in "abc":
        await enqueued(db, key, 5)
    await db.rows("UPDATE dbosflow.workflow SET units = 5 WHERE id IN ('b-1', 'c-2')")
    assert [one.id for one in (await claim(lease, limit=3))[0]] == ["a-1", "b-1", "c-1"]  # seven units
    assert await db.rows(ROWS) == [("a", 1), ("b", 5), ("c", 1)]
    assert [one.id for one in (await claim(lease, limit=9))[0]] == ["a-2"]
    _, room = await claim(lease, limit=9)
    assert (room.is_held, room.locked) == (True, False)  # of a: c is passed over, since its next one needs all
    assert json.loads(room.short_for or "").keys() == {"b", "c"}
    assert await db.rows("SELECT charged, charged_partition FROM dbosflow.workflow WHERE id = 'a-1'") == [("", True)]


async def test_what_is_pinned_has_the_rate_of_its_partition(db: Database) -> None:
    """Whichever version it is of."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await enqueued(db, "a", 2)
    await enqueued(db, "a", 5, version="v1")
    assert len((await claim(lease, limit=9))[0]) == 2
    assert len((await claim(lease, limit=9, queue=stored_queue("q", "v1")))[0]) == 1


async def test_a_suspect_of_a_partition_without_units_is_claimed(db: Database) -> None:
    """For it has begun before, like all that comes back."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await enqueued(db, "a", 5)
    await claim(lease, limit=9)
    await db.rows("UPDATE dbosflow.workflow SET recoveries = 3, epoch = 4 WHERE id = 'a-5'")
    assert (await claim(lease, suspects=False))[0] == []
    assert [one.id for one in (await claim(lease))[0]] == ["a-5"]


async def test_a_claim_that_is_under_way_counts_when_the_rate_changes_or_goes(db: Database) -> None:
    """Whoever changes it waits, and sees what that claim has taken."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await enqueued(db, "a", 9)
    for changing in (limited(db, **{**SLOW, "partition_rate_burst": 2}), queue.delete(db.admin, SCHEMA, "q")):
        holder = await db.connect(autocommit=False)
        await holder.execute("SELECT FROM dbosflow.worker FOR UPDATE")
        claiming = asyncio.create_task(claim(lease, limit=3))  # it has its turn, and waits for its worker's row
        await db.waiting(lease.connection)
        change = asyncio.create_task(cast("Any", changing))
        assert (await asyncio.wait([change], timeout=0.1))[1]
        await holder.rollback()
        await claiming
        await change
        if await db.rows("SELECT FROM dbosflow.queue"):
            assert await db.rows(ROWS) == [("a", 3)]
            await later(db, 3000)
    assert await db.rows(ROWS) == []


async def test_a_debt_stays_one_when_the_rate_changes_and_a_partition_that_owes_nothing_keeps_its_burst(
    db: Database,
) -> None:
    """So another rate gives nobody a second burst. Without a rate all is forgotten."""
    lease = await db.lease()
    await limited(db, **SLOW)
    for key in "abc":
        await enqueued(db, key, 9)
    await db.rows("UPDATE dbosflow.workflow SET units = 10 WHERE id = 'b-1'")
    assert len((await claim(lease, limit=3))[0]) == 3
    await db.rows("UPDATE dbosflow.partition_rate SET next_at = now(), moved_at = now() WHERE key = 'c'")
    await limited(db, **{**SLOW, "partition_rate_period": 2000.0, "partition_rate_burst": 4})
    assert await db.rows(ROWS) == [("a", 8), ("b", 20)]
    assert keys((await claim(lease, limit=9))[0]) == [*"cccc"]
    await limited(db, partition_rate_count=None)
    assert await db.rows(ROWS) == []
    assert len((await claim(lease, limit=30))[0]) == 20


async def test_rows_of_partitions_that_owe_nothing_go_and_hold_nobody_up(db: Database) -> None:
    """However many there are, page by page; but not one that a claim or a correction is just writing."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await db.rows(
        """INSERT INTO dbosflow.partition_rate (queue, key, next_at, moved_at)
           SELECT 'q', 'idle' || n, now() - interval '1 second', now() - interval '1 minute'
           FROM generate_series(1, 2500) n"""
    )
    await enqueued(db, "busy", 1)
    await claim(lease)
    holder = await db.connect(autocommit=False)
    await holder.execute("UPDATE dbosflow.partition_rate SET moved_at = now() WHERE key = 'idle7'")
    place: tuple[str, str] | None = ("", "")
    pages = 0
    async with asyncio.timeout(PATIENCE):
        while place is not None:
            place = await queue.delete_even(db.admin, SCHEMA, place)
            pages += 1
    await holder.rollback()
    assert (pages, [key for key, _ in await db.rows(ROWS)]) == (3, ["busy", "idle7"])


async def test_six_claimers_never_begin_more_of_a_partition_than_its_rate_allows(db: Database) -> None:
    """While they die in the middle, rows of partitions that owe nothing go, and the queue has a rate, too."""
    burst, per_second, dice = 5, 40, random.Random(3)
    rate: dict[str, Any] = dict(zip(SLOW, (per_second, 1.0, burst), strict=True))
    await limited(db, **rate, rate_count=150, rate_period=1.0, rate_burst=20)
    for key in "abcd":
        await enqueued(db, key, 25)
    await db.rows("UPDATE dbosflow.workflow SET units = 1 + (hashtext(id) & 1)")
    ((began,),) = await db.rows("SELECT extract(epoch FROM clock_timestamp())::double precision")
    left, busy = 100, 0

    async def work() -> None:
        nonlocal left, busy
        lease, cleaner = await db.lease(), await db.connect()
        while left > 0:
            if dice.random() < 0.1:  # its connection is cut between the look and the claim, or behind it
                task = asyncio.create_task(claim(lease, limit=dice.randint(1, 6)))
                await asyncio.sleep(0)
                await lease.connection.close()
                await asyncio.gather(task, return_exceptions=True)
                lease = await db.lease()
            claimed, room = await claim(lease, limit=dice.randint(1, 6))
            busy += room.is_busy
            await queue.delete_even(cleaner, SCHEMA, ("", ""))
            found = await db.rows(
                """SELECT sum(units)::integer, extract(epoch FROM clock_timestamp())::double precision
                   FROM dbosflow.workflow WHERE epoch > 0 GROUP BY queue"""
            )
            assert all(units <= burst + per_second * (now - began) + 1 for units, now in found)
            if not claimed:
                ((left,),) = await db.rows("SELECT count(*) FROM dbosflow.workflow WHERE epoch = 0")
                await asyncio.sleep(0.005)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work() for _ in range(6)))
    assert busy, "the claimers never met"


async def test_a_claimer_knows_the_earliest_time_of_all_partitions_and_asks_that_one(db: Database) -> None:
    """Of very many, where nothing may begin: after a round it waits, and a look finds the one whose time has come."""
    lease = await db.lease()
    await limited(db, **{**SLOW, "partition_rate_burst": 1})
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input)
           SELECT 'w' || n, %s, 'queued', 'q' || chr(31) || lpad(n::text, 4, '0'), '{}'
           FROM generate_series(1, 300) n""",
        NAME,
    )
    await db.rows(
        """INSERT INTO dbosflow.partition_rate (queue, key, next_at, moved_at)
           SELECT 'q', lpad(n::text, 4, '0'), now() + make_interval(secs => CASE n WHEN 222 THEN 100 ELSE 500 END),
                  now()
           FROM generate_series(1, 300) n"""
    )
    nothing: Any = None
    announced: list[str] = []
    limits = QueueLimits(
        "q", pool=nothing, schema=SCHEMA, wakeups=Wakeups(), announce=announced.extend, wake=lambda: None
    )
    which: dict[str, Any] = {"freed": 0, "limit": 5, "names": [NAME]}
    looks, again = 0, True
    while again:
        found = await limits.claim(lease.connection, lease.id, **which)
        assert found is not None
        claimed, again = found
        looks += 1
        assert claimed == []
    assert looks == 300 // 64 + 1
    assert 90 < limits.ring.due_in <= 100
    await db.rows("UPDATE dbosflow.partition_rate SET next_at = now() WHERE key = '0222'")
    limits.ring.hint("0222")  # as its time does
    found = await limits.claim(lease.connection, lease.id, **which)
    assert found is not None
    assert [partition_of(one.queue) for one in found[0]] == ["0222"]
    await end(lease, *found[0])
    limits.close()
    assert announced == [limits_topic("q")], "nobody else may know that time"
