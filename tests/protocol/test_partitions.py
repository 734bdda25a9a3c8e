"""Claims of queues with partitions: each has its turn, by its weight, and no more of it run than its limit allows."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._records.pins import partition_of, stored_queue
from dbosflow._store import queue
from dbosflow._store.queue import Place
from tests.protocol.queue_watch import beyond, watch
from tests.protocol.schedules import NAME, SCHEMA
from tests.protocol.test_queue_limits import end, limited

if TYPE_CHECKING:
    from dbosflow._store.queue import Room
    from dbosflow._store.workflow import Claimed
    from tests.protocol.schedules import Database, WorkerLease

WINDOW = 64
"""Partitions that a claim looks at, at most, besides those that it serves."""


async def enqueued(db: Database, key: str | None, count: int = 1, *, version: str | None = None) -> None:
    """So many workflows of a partition."""
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input)
           SELECT %s || '-' || n, %s, 'queued', %s, '{}' FROM generate_series(1, %s) AS n""",
        *(f"{version or ''}{key or ''}", NAME, stored_queue("q", version, key), count),
    )


async def claim(lease: WorkerLease, limit: int = 1, **more: Any) -> tuple[list[Claimed], Room]:
    """One claim of the queue."""
    which: dict[str, Any] = {"queue": "q", "names": [NAME], "limit": limit} | more
    claimed, room = await queue.claim(lease.connection, SCHEMA, worker_id=lease.id, **which)
    assert room is not None
    return claimed, room


def keys(claimed: list[Claimed]) -> list[str]:
    """The partitions of what was claimed."""
    return sorted(partition_of(one.queue) or "" for one in claimed)


async def served(lease: WorkerLease, claims: int, limit: int = 1) -> list[str]:
    """The partitions that a number of claims have served; what was claimed ends at once."""
    found: list[str] = []
    for _ in range(claims):
        claimed, _ = await claim(lease, limit)
        found += keys(claimed)
        if claimed:
            await end(lease, *claimed)
    return found


async def test_partitions_have_their_turn_one_after_the_other(db: Database) -> None:
    """However much waits in one, and whatever the claims before have taken; those without a key have a turn, too."""
    lease = await db.lease()
    await limited(db)
    for key, count in (("a", 50), ("b", 2), ("c", 3), (None, 2)):
        await enqueued(db, key, count)
    assert await served(lease, 12) == ["a", "b", "c", "", "a", "b", "c", "", "a", "c", "a", "a"]


async def test_a_partition_gets_its_weight_in_each_turn_over_any_claims(db: Database) -> None:
    """Also when a claim ends in the middle of a turn."""
    lease = await db.lease()
    await limited(db, weights='{"b": 3}')
    for key in "abc":
        await enqueued(db, key, 20)
    assert await served(lease, 10) == [*"abbbcabbbc"]
    found = [key for _ in range(5) for key in await served(lease, 1, 2)]
    assert sorted(found) == sorted([*"abbbcabbbc"])


async def test_one_claim_serves_as_many_partitions_as_it_may_take(db: Database) -> None:
    """Only those in which nothing may run are counted against what it looks at."""
    lease = await db.lease()
    await limited(db)
    for number in range(WINDOW + 10):
        await enqueued(db, f"{number:03}")
    claimed, _ = await claim(lease, limit=WINDOW + 9)
    assert keys(claimed) == [f"{number:03}" for number in range(WINDOW + 9)]


async def test_one_claim_gives_each_partition_its_share(db: Database) -> None:
    """And what one has not, the others get."""
    lease = await db.lease()
    await limited(db, weights='{"b": 3}')
    for key, count in (("a", 20), ("b", 20), ("c", 1)):
        await enqueued(db, key, count)
    claimed, _ = await claim(lease, limit=9)
    assert keys(claimed) == [*"aabbbbbbc"]


async def test_in_a_partition_priority_decides_and_then_age(db: Database) -> None:
    """Between partitions it does not."""
    lease = await db.lease()
    await limited(db)
    await enqueued(db, "a", 3)
    await enqueued(db, "b", 3)
    await db.rows("UPDATE dbosflow.workflow SET priority = -1 WHERE id = 'b-3'")
    claimed, _ = await claim(lease, limit=4)
    assert sorted(one.id for one in claimed) == ["a-1", "a-2", "b-1", "b-3"]


async def test_a_full_partition_is_passed_over_and_told(db: Database) -> None:
    """Its end makes room again. The limit counts what runs of the partition on any worker."""
    first, second = await db.lease(), await db.lease()
    await limited(db, partition_concurrency=2)
    await enqueued(db, "a", 10)
    await enqueued(db, "b", 1)
    claimed, _ = await claim(first, limit=9)
    assert keys(claimed) == [*"aab"]
    none, room = await claim(second, limit=9)
    assert (none, room.is_full, room.is_busy, room.is_crowded) == ([], True, False, True)
    await end(first, next(one for one in claimed if partition_of(one.queue) == "a"))
    again, _ = await claim(second, limit=9)
    assert keys(again) == ["a"]


async def test_pinned_workflows_count_in_their_partition(db: Database) -> None:
    """Their claimers walk over the partitions of their own version, and keep to the same limit."""
    lease = await db.lease()
    await limited(db, partition_concurrency=2)
    await enqueued(db, "a", 1)
    await enqueued(db, "a", 5, version="v1")
    claimed, _ = await claim(lease, limit=9)
    assert [one.id for one in claimed] == ["a-1"]
    claimed, _ = await claim(lease, limit=9, queue=stored_queue("q", "v1"))
    assert [one.id for one in claimed] == ["v1a-1"]


async def test_a_claim_looks_at_some_partitions_and_at_those_of_hints(db: Database) -> None:
    """With many full ones it goes on where it was; and comes round. A hint finds the one with room at once."""
    lease = await db.lease()
    await limited(db, partition_concurrency=1)
    full = 2 * WINDOW + 10
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, worker_id, epoch, slot)
           SELECT s || n, %s, s, 'q' || chr(31) || lpad(n::text, 4, '0'), '{}',
                  CASE s WHEN 'running' THEN %s::uuid END, 1, CASE s WHEN 'running' THEN 'q' END
           FROM generate_series(1, %s) AS n, unnest(ARRAY['running', 'queued']) AS s""",
        *(NAME, lease.id, full),
    )
    await enqueued(db, "z")
    claimed, room = await claim(lease)
    assert (claimed, room.is_ready, room.is_round, room.key) == ([], False, False, f"{WINDOW:04}")
    places = 0
    while not claimed:
        claimed, room = await claim(lease, place=Place(room.lap, room.key, room.until))
        places += 1
    assert (keys(claimed), places) == (["z"], 2)
    await enqueued(db, "zz")
    claimed, _ = await claim(lease, hinted=["0003", "zz"])
    assert keys(claimed) == ["zz"]
    looks = 1
    _, room = await claim(lease)
    while not room.is_round:
        assert not room.is_ready
        _, room = await claim(lease, place=Place(room.lap, room.key, room.until))
        looks += 1
    assert looks == full // WINDOW + 1


async def test_a_hint_does_not_change_whose_turn_it_is(db: Database) -> None:
    """One who enqueues more often is not served more often."""
    lease = await db.lease()
    await limited(db)
    for key in "abc":
        await enqueued(db, key, 5)
    found: list[str] = []
    for _ in range(6):
        claimed, _ = await claim(lease, hinted=["c"])
        found += keys(claimed)
        if claimed:
            await end(lease, *claimed)
    assert found == [*"abcabc"]


async def test_a_rate_holds_no_partition_up_that_goes_on(db: Database) -> None:
    """What has begun before is taken from any partition, and what has not from none."""
    lease = await db.lease()
    await limited(db, rate_count=1, rate_period=1000.0, rate_burst=1)
    for key in "abc":
        await enqueued(db, key, 2)
    assert keys((await claim(lease, limit=9))[0]) == ["a"]
    claimed, room = await claim(lease, limit=9)
    assert (claimed, room.is_held, room.is_busy) == ([], True, False)
    await db.rows("UPDATE dbosflow.workflow SET epoch = 1, priority = -1 WHERE id = 'c-2'")
    assert [one.id for one in (await claim(lease, limit=9))[0]] == ["c-2"]


async def test_a_suspect_of_a_partition_is_claimed_alone(db: Database) -> None:
    """By a worker that takes suspects; another one passes over it."""
    lease, other = await db.lease(), await db.lease()
    await limited(db)
    await enqueued(db, "a", 2)
    await enqueued(db, "b", 1)
    await db.rows("UPDATE dbosflow.workflow SET recoveries = 3, epoch = 4 WHERE id = 'b-1'")
    assert [one.id for one in (await claim(other, suspects=False))[0]] == ["a-1"]
    assert [one.id for one in (await claim(lease, limit=9))[0]] == ["b-1"]


@pytest.mark.parametrize("seed", range(3))
async def test_what_waits_in_small_partitions_does_not_wait_for_a_large_one(db: Database, seed: int) -> None:
    """A tenant with very much, and others with little: all of these are done before long, whoever claims how much."""
    large, small, each = 2000, 30, 10
    await limited(db, partition_concurrency=3)
    await watch(db)
    await enqueued(db, "large", large)
    for number in range(small):
        await enqueued(db, f"small{number}", each)
    left, of_large = small * each, 0
    dice = random.Random(seed)

    async def work() -> None:
        nonlocal left, of_large
        lease = await db.lease()
        while left > 0:
            claimed, _ = await claim(lease, limit=dice.randint(1, 5))
            await asyncio.sleep(0)
            if claimed:
                await end(lease, *claimed)
            left -= sum(partition_of(one.queue) != "large" for one in claimed)
            of_large += sum(partition_of(one.queue) == "large" for one in claimed)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work() for _ in range(4)))
    assert await beyond(db) == []
    assert of_large <= 2 * each, "a turn for each turn of the others, and a little more"


@pytest.mark.parametrize("key", [None, "a"])
@pytest.mark.parametrize("pins", [(None, "v"), ("w", None), ("w", "v")], ids=str)
async def test_a_look_sees_what_waits_in_a_partition_for_workers_of_another_version(
    db: Database, key: str | None, pins: tuple[str | None, str | None]
) -> None:
    """So whoever made room there, and cannot take it, tells others: if there are workers of that version."""
    own, other = pins
    lease, their = await db.lease(), await db.lease()
    await limited(db, partition_concurrency=1)
    await enqueued(db, key, version=own)
    (first,), _ = await claim(lease, queue=stored_queue("q", own), hinted=[key or ""])
    await enqueued(db, key, version=other)
    await end(lease, first)

    async def open_keys() -> Any:
        _, room = await claim(lease, queue=stored_queue("q", own), hinted=[key or ""])
        return None if room.open_keys is None else json.loads(room.open_keys)

    assert await open_keys() == ({key or "": 1} if other is None else None)
    await db.rows("UPDATE dbosflow.worker SET version_name = %s WHERE id = %s", other, their.id)
    assert await open_keys() == {key or "": 1}
