"""What a claim takes of workflows of many names: what is first of those that it knows and that nobody holds."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._store import attribute, queue, workflow
from tests.protocol.schedules import SCHEMA
from tests.protocol.test_queue_limits import limited

if TYPE_CHECKING:
    from tests.protocol.schedules import Database, WorkerLease

CLAIMERS = 8
SOME = [f"n{number}" for number in range(6)]

Row = tuple[int, int, str, str]
"""The priority, the age, the id and the name of what waits."""


async def waiting(db: Database, dice: random.Random, names: list[str], count: int) -> list[Row]:
    """So many workflows of these names and any priorities, in the order in which they are to be claimed."""
    rows = [(dice.randint(-1, 1), dice.randint(0, count), f"w{number}", dice.choice(names)) for number in range(count)]
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, priority, created_at)
           SELECT id, name, 'queued', 'q', '{}', priority, now() + age * interval '1 second'
           FROM unnest(%s::int[], %s::int[], %s::text[], %s::text[]) AS w (priority, age, id, name)""",
        *(list(column) for column in zip(*rows, strict=True)),
    )
    return sorted(rows)


async def claim(lease: WorkerLease, names: list[str], limit: int, *, has_limits: bool = False) -> list[str]:
    """The ids that one claim takes."""
    which: dict[str, Any] = {"worker_id": lease.id, "queue": "q", "names": names, "limit": limit}
    if has_limits:
        found, _ = await queue.claim(lease.connection, SCHEMA, **which)
        return sorted(one.id for one in found)
    return sorted(one.id for one in await workflow.claim(lease.connection, SCHEMA, **which))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("has_limits", [False, True], ids=["", "limits"])
async def test_a_claim_takes_what_is_first_of_all_names_that_it_knows(
    db: Database, seed: int, *, has_limits: bool
) -> None:
    """Also if one has most of what waits, and in whatever order its worker has learned the names."""
    dice = random.Random(seed)
    lease = await db.lease()
    if has_limits:
        await limited(db, "q", concurrency=1000)
    kinds = dice.sample(SOME, dice.randint(2, len(SOME)))
    left = await waiting(db, dice, kinds + kinds[:1] * dice.choice([0, 9]), 300)
    while left:
        names = dice.sample([*SOME, "n", "z"], dice.randint(1, len(SOME) + 2))
        limit = dice.choice([1, 3, 10, 40, 200])
        first = sorted([row for row in left if row[3] in names])[:limit]
        assert await claim(lease, names, limit, has_limits=has_limits) == sorted(row[2] for row in first)
        left = [row for row in left if row not in first]


@pytest.mark.parametrize("seed", range(6))
async def test_what_others_hold_is_passed_over_and_makes_no_claim_smaller(db: Database, seed: int) -> None:
    """A claim takes as many as it may, as long as so many are free; and holds no other."""
    dice = random.Random(seed)
    lease, other = await db.lease(), await db.connect(autocommit=False)
    rows = await waiting(db, dice, SOME[: dice.randint(1, len(SOME))], 400)
    held = {row[2] for row in rows[: dice.choice([20, 100, 300])] if dice.random() < dice.choice([0.5, 1.0])}
    await other.execute("SELECT FROM dbosflow.workflow WHERE id = ANY(%s) FOR UPDATE", ([*held],))
    for limit in (1, 5, 60):
        free = [row for row in rows if row[2] not in held][:limit]
        await lease.connection.execute("BEGIN")
        assert await claim(lease, SOME, limit) == sorted(row[2] for row in free)
        query = (
            "SELECT count(*) FROM (SELECT FROM dbosflow.workflow WHERE status = 'queued' FOR UPDATE SKIP LOCKED) AS f"
        )
        assert await db.rows(query) == [(len(rows) - len(held) - limit,)]
        await lease.connection.execute("ROLLBACK")


@pytest.mark.parametrize("names", [1, 3])
async def test_claimers_at_the_same_time_take_as_much_as_they_may(db: Database, names: int) -> None:
    """Each takes its number, as long as there are as many for all; and nothing is claimed twice."""
    leases = [await db.lease() for _ in range(CLAIMERS)]
    rows = await waiting(db, random.Random(1), SOME[:names], 800)
    taken: list[str] = []
    while len(taken) < len(rows):
        found = await asyncio.gather(*(claim(lease, SOME, 10) for lease in leases))
        assert [len(one) for one in found] == [10] * CLAIMERS
        taken += [workflow_id for one in found for workflow_id in one]
    assert sorted(taken) == sorted(row[2] for row in rows)


@pytest.mark.parametrize("recoveries", [0, 3], ids=["", "suspect"])
@pytest.mark.parametrize("has_limits", [False, True], ids=["", "limits"])
@pytest.mark.parametrize("names", [1, 2])
async def test_who_only_keeps_a_workflow_from_being_removed_holds_up_nobody(
    db: Database, names: int, recoveries: int, *, has_limits: bool
) -> None:
    """Nobody would tell the claimer, or the reclaimer, when that is over."""
    lease, other = await db.lease(), await db.connect(autocommit=False)
    if has_limits:
        await limited(db, "q", concurrency=1000)
    ids = sorted(row[2] for row in await waiting(db, random.Random(1), SOME[:names], 1 if recoveries else 9))
    await db.rows("UPDATE dbosflow.workflow SET recoveries = %s", recoveries)
    for workflow_id in ids:
        assert await attribute.update(other, SCHEMA, workflow_id, {"colour": '"red"'})
    assert await claim(lease, SOME, 9, has_limits=has_limits) == ids
    await db.reclaim(lease)
    assert sorted(await db.requeue()) == ids
