"""Buckets that queues share, and units: claims take turns, and take what the bucket has units for, in strict order."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

from dbosflow._runtime.queues.limits import QueueLimits
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._store import queue
from dbosflow._store.queue import Room
from tests.protocol.schedules import PATIENCE, SCHEMA
from tests.protocol.test_queue_limits import claim, limited, waiting

if TYPE_CHECKING:
    import pytest

    from tests.protocol.schedules import Database, WorkerLease

SLOW: dict[str, Any] = {"rate_count": 10, "rate_period": 10_000.0, "rate_burst": 10, "bucket": "api"}
"""Ten units at once, and then one in a thousand seconds."""


async def units(db: Database, **of: int) -> None:
    """Gives workflows their units."""
    for name, count in of.items():
        await db.rows("UPDATE dbosflow.workflow SET units = %s WHERE id = %s", count, name)


async def later(db: Database, seconds: float) -> None:
    """As if so much time had passed for all buckets."""
    await db.rows(
        """UPDATE dbosflow.bucket SET rate_next_at = rate_next_at - %s * interval '1 second',
               rate_moved_at = rate_moved_at - %s * interval '1 second'""",
        *(seconds, seconds),
    )


async def taken(lease: WorkerLease, **which: Any) -> list[str]:
    """The ids of what a claim has taken."""
    claimed, room = await claim(lease, **which)
    assert room is not None
    return [one.id for one in claimed]


async def test_two_queues_draw_on_one_bucket(db: Database) -> None:
    """What one has taken, the other has not."""
    lease = await db.lease()
    for name in ("a", "b"):
        await limited(db, name, **SLOW)
        await waiting(db, 8, name, prefix=name)
    assert len(await taken(lease, name="a")) == 8
    assert await taken(lease, name="b") == ["b1", "b2"]
    _, room = await claim(lease, name="b")
    assert room is not None
    assert (room.is_held, room.is_busy, room.locked) == (True, False, False)
    assert room.rate_for is not None
    assert 900 < room.rate_for <= 1000


async def test_units_are_taken_in_strict_order(db: Database) -> None:
    """A big one at the head waits for its units, and small ones behind it do not starve it; what has begun goes on."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await waiting(db, 5)
    await units(db, w1=4, w2=7)
    assert await taken(lease) == ["w1"]
    _, room = await claim(lease)
    assert room is not None
    assert (room.is_held, room.tokens) == (True, 6)
    assert room.rate_for is not None
    assert 900 < room.rate_for <= 1000
    await db.rows("UPDATE dbosflow.workflow SET epoch = 2 WHERE id = 'w2'")
    assert await taken(lease) == ["w2", "w3", "w4", "w5"]
    assert await db.rows("SELECT id, charged FROM dbosflow.workflow ORDER BY id") == [
        *(("w1", "api"), ("w2", None), ("w3", "api"), ("w4", "api"), ("w5", "api"))
    ]


async def test_more_units_than_the_burst_begin_when_the_bucket_is_full_and_are_paid_in_full(db: Database) -> None:
    """So nothing waits for ever, and over a longer time the rate holds."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await waiting(db, 2)
    await waiting(db, 1, prefix="x")
    await units(db, w2=25)
    assert await taken(lease, limit=1) == ["w1"]
    assert await taken(lease) == []
    await later(db, 1000)
    assert await taken(lease) == ["w2"]
    await later(db, 15_000)
    assert await taken(lease) == []
    await later(db, 1000)
    assert await taken(lease) == ["x1"]


async def test_one_that_is_locked_gives_its_place_and_no_more_than_the_units_begin(db: Database) -> None:
    """A cancel holds the first one: the next one is larger than what the first one was counted with."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await waiting(db, 3)
    await units(db, w1=2, w2=8, w3=5)
    holder = await db.connect(autocommit=False)
    await holder.execute("SELECT FROM dbosflow.workflow WHERE id = 'w1' FOR UPDATE")
    assert await taken(lease) == ["w2"]
    await holder.rollback()
    assert await taken(lease) == ["w1"]
    assert await taken(lease) == []


async def test_who_finds_the_bucket_at_another_ones_turn_comes_again(db: Database) -> None:
    """In milliseconds, and waits for nobody."""
    lease = await db.lease()
    await limited(db, **SLOW)
    await waiting(db, 1)
    holder = await db.connect(autocommit=False)
    await holder.execute("SELECT FROM dbosflow.bucket FOR NO KEY UPDATE")
    async with asyncio.timeout(PATIENCE):
        claimed, room = await claim(lease)
    assert room is not None
    assert (claimed, room.is_busy, room.locked) == ([], True, False)
    await holder.rollback()
    assert await taken(lease) == ["w1"]


async def test_who_comes_too_late_for_what_it_has_seen_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another queue has taken the units between its look and its turn: without a second look, nobody would wake it."""
    seen = Room(
        *(True, None, True, None, True), tokens=5, rate_for=None, is_held=False, locked=True
    )  # open, no limit of room, settled, not paused, something waits
    monkeypatch.setattr(queue, "claim", AsyncMock(return_value=([], seen)))
    woken = asyncio.Event()
    nothing = cast("Any", None)
    limits = QueueLimits("q", pool=nothing, schema=SCHEMA, wakeups=Wakeups(), announce=lambda _: None, wake=woken.set)
    assert await limits.claim(nothing, nothing, freed=0, limit=5) == ([], False)
    async with asyncio.timeout(PATIENCE):
        await woken.wait()
    limits.close()


async def test_six_claimers_of_two_queues_never_take_more_than_the_bucket_has(db: Database) -> None:
    """While units of all sizes come and go: what has begun is within the burst and the time that has passed."""
    burst, per_second, dice = 200, 400, random.Random(2)
    for name in ("a", "b"):
        await limited(db, name, rate_count=per_second, rate_period=1.0, rate_burst=burst, bucket="api")
        await waiting(db, 80, name, prefix=name)
    await db.rows("UPDATE dbosflow.workflow SET units = 1 + (hashtext(id) & 15)")
    ((total, biggest, began),) = await db.rows(
        """SELECT sum(units)::integer, max(units), extract(epoch FROM clock_timestamp())::double precision
           FROM dbosflow.workflow"""
    )
    assert total > 2 * burst
    left, busy = 160, 0

    async def work(name: str) -> None:
        nonlocal left, busy
        lease = await db.lease()
        while left > 0:
            claimed, room = await claim(lease, limit=dice.randint(1, 6), name=name)
            assert room is not None
            busy += room.is_busy
            left -= len(claimed)
            ((begun, now),) = await db.rows(
                """SELECT coalesce(sum(units), 0)::integer, extract(epoch FROM clock_timestamp())::double precision
                   FROM dbosflow.workflow WHERE status = 'running'"""
            )
            assert begun <= burst + per_second * (now - began) + 1
            if not claimed and room.rate_for is not None:
                await asyncio.sleep(min(room.rate_for, 0.01))

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(work(name) for name in ("a", "b") for _ in range(3)))
    assert busy, "the claimers never met"
    assert biggest == 16
    ((ended,),) = await db.rows("SELECT extract(epoch FROM clock_timestamp())::double precision")
    assert ended - began >= (total - burst) / per_second - 0.01


async def test_a_bucket_is_there_as_long_as_a_queue_has_it(db: Database) -> None:
    """Also where one gives it up while another gets it."""
    await limited(db, "a", **SLOW)
    await limited(db, "a", rate_count=None)
    await queue.delete_unused(db.admin, SCHEMA)
    assert await db.rows("SELECT name FROM dbosflow.bucket") == []
    await limited(db, "a", **SLOW)
    await limited(db, "a", rate_count=None)
    joining, deleting = await db.connect(autocommit=False), await db.connect()
    await queue.apply(joining, SCHEMA, "b", SLOW)
    deletion = asyncio.create_task(queue.delete_unused(deleting, SCHEMA))
    await db.waiting(deleting)
    await joining.commit()
    await deletion
    assert await db.rows("SELECT name FROM dbosflow.bucket") == [("api",)]


async def test_the_last_rate_of_a_bucket_is_that_of_all_its_queues(db: Database) -> None:
    """It begins with its burst used up; the same one goes on; and a debt is never forgiven by another rate."""
    lease = await db.lease()
    await limited(db, "a", **SLOW)
    await waiting(db, 3, "a")
    assert len(await taken(lease, name="a", limit=1)) == 1
    await limited(db, "b", **SLOW)
    _, room = await claim(lease, name="a", limit=0)
    assert room is not None
    assert room.tokens == 9
    await limited(db, "b", **{**SLOW, "rate_burst": 5})
    _, room = await claim(lease, name="a")
    assert room is not None
    assert (room.tokens, room.is_held) == (0, True)
    await db.rows("UPDATE dbosflow.bucket SET rate_next_at = rate_next_at + interval '20000 seconds'")
    await limited(db, "b", **{**SLOW, "rate_count": 1000, "rate_burst": 7})
    _, room = await claim(lease, name="a")
    assert room is not None
    assert room.rate_for is not None
    assert 170 < room.rate_for < 190  # 25 units, less the burst but for one, at ten seconds each


async def test_a_paused_bucket_stops_all_its_queues_until_its_time(db: Database) -> None:
    """Each claimer is told when that is."""
    lease = await db.lease()
    for name in ("a", "b"):
        await limited(db, name, **SLOW)
        await waiting(db, 1, name, prefix=name)
    assert await queue.pause_bucket(db.admin, SCHEMA, "api", {"paused": True, "pause_for": 100.0}) == ["a", "b"]
    for name in ("a", "b"):
        claimed, room = await claim(lease, name=name)
        assert room is not None
        assert (claimed, room.is_open, room.is_busy) == ([], False, False)
        assert room.paused_for is not None
        assert 90 < room.paused_for <= 100
    assert await queue.pause_bucket(db.admin, SCHEMA, "api", {"paused": False}) == ["a", "b"]
    assert await taken(lease, name="b") == ["b1"]
    assert await queue.pause_bucket(db.admin, SCHEMA, "unknown", {"paused": True}) is None
