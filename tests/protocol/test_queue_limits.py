"""Claims of queues with limits, by several connections at a time: what runs never exceeds a limit, and nobody waits."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from dbosflow._runtime.queues.limits import QueueLimits, settle
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._store import queue, workflow
from tests.protocol.queue_watch import beyond, watch
from tests.protocol.schedules import NAME, PATIENCE, SCHEMA, Slice

if TYPE_CHECKING:
    from dbosflow._store.queue import Room
    from dbosflow._store.workflow import Claimed
    from tests.protocol.schedules import Database, WorkerLease

CLAIMERS = 6
LIMIT = 3
FULL_OR_PAUSED: list[dict[str, Any]] = [{}, {"concurrency": 5, "paused": True}]


async def limited(db: Database, name: str = "q", **limits: Any) -> None:
    """Sets limits of a queue."""
    async with await db.connect() as connection:
        await queue.apply(connection, SCHEMA, name, limits)
        await settle(connection, SCHEMA, name)


async def waiting(db: Database, count: int, name: str = "q", prefix: str = "w", partitions: int = 0) -> None:
    """So many workflows that wait; of some partitions, and some of none."""
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input)
           SELECT %s || n, %s, 'queued',
                  %s || CASE WHEN n %% (%s + 1) > 0 THEN chr(31) || n %% (%s + 1) ELSE '' END, '{}'
           FROM generate_series(1, %s) AS n""",
        *(prefix, NAME, name, partitions, partitions, count),
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


async def test_the_claim_of_a_queue_without_limits_takes_nothing_from_one_with_limits(db: Database) -> None:
    """A worker that has not heard of the limits yet, and one that has not heard of their end."""
    lease = await db.lease()
    await waiting(db, 2)
    which: dict[str, Any] = {"worker_id": lease.id, "queue": "q", "names": [NAME], "limit": 1}
    assert len(await workflow.claim(lease.connection, SCHEMA, **which)) == 1
    await limited(db, concurrency=5)
    assert await workflow.claim(lease.connection, SCHEMA, **which) == []
    await queue.delete(db.admin, SCHEMA, "q")
    assert await claim(lease) == ([], None)
    assert len(await workflow.claim(lease.connection, SCHEMA, **which)) == 1


async def test_a_claim_that_was_under_way_when_a_queue_got_its_first_limits_counts(db: Database) -> None:
    """It does not see the limits. They hold when it is over and counted, and nothing is claimed before."""
    first, second = await db.lease(), await db.lease()
    await waiting(db, 4)
    # Its statement waits for the worker's row, as for a death that is under way: its snapshot is taken.
    holder = await db.connect(autocommit=False)
    await holder.execute("SELECT FROM dbosflow.worker WHERE id = %s FOR UPDATE", (first.id,))
    late = asyncio.create_task(
        workflow.claim(first.connection, SCHEMA, worker_id=first.id, queue="q", names=[NAME], limit=2)
    )
    await db.waiting(first.connection)
    setting = asyncio.create_task(limited(db, concurrency=3))
    while not (await queue.state(db.admin, SCHEMA, "q")).is_limited:  # noqa: ASYNC110 (nothing signals it)
        await asyncio.sleep(0)
    claimed, room = await claim(second)
    assert room is not None
    assert (claimed, room.is_open, room.settled) == ([], False, False)
    assert not setting.done()
    await holder.rollback()
    assert len(await late) == 2
    await setting
    claimed, room = await claim(second)
    assert (len(claimed), room and room.room) == (1, 1)


async def test_who_finds_another_one_at_its_turn_is_told_so(db: Database) -> None:
    """And comes again: that there is nothing to take is another answer, and so is a full queue."""
    lease = await db.lease()
    await limited(db, concurrency=1)
    _, room = await claim(lease)
    assert room is not None
    assert (room.is_busy, room.is_full, room.locked) == (False, False, False)
    await waiting(db, 2)
    holder = await db.connect(autocommit=False)
    await holder.execute("SELECT FROM dbosflow.queue WHERE name = 'q' FOR NO KEY UPDATE")
    claimed, room = await claim(lease)
    assert room is not None
    assert (claimed, room.is_busy) == ([], True)
    await holder.rollback()
    claimed, _ = await claim(lease)
    assert len(claimed) == 1
    _, room = await claim(lease)
    assert room is not None
    assert (room.is_busy, room.is_full, room.locked) == (False, True, False)


async def test_a_full_queue_and_a_paused_one_are_looked_at_without_a_lock(db: Database) -> None:
    """However much waits in them: neither the queue's row is locked nor the worker's, so there is nothing to commit."""
    lease = await db.lease()
    await waiting(db, 500)
    await limited(db, concurrency=1)
    await claim(lease)
    for changed in FULL_OR_PAUSED:
        await limited(db, **changed)
        holder = await db.connect(autocommit=False)
        await holder.execute("SELECT FROM dbosflow.queue FOR UPDATE")
        await holder.execute("SELECT FROM dbosflow.worker FOR UPDATE")
        async with asyncio.timeout(PATIENCE):
            claimed, room = await claim(lease)
        assert room is not None
        assert (claimed, room.is_busy, room.waits) == ([], False, True)
        await holder.rollback()


async def test_suspects_are_claimed_within_the_limit_and_alone(db: Database) -> None:
    """A workflow that has killed its workers takes a slot as any other."""
    lease, other = await db.lease(), await db.lease()
    await limited(db, concurrency=1)
    await waiting(db, 2)
    await db.rows("UPDATE dbosflow.workflow SET recoveries = 3, epoch = 4 WHERE id = 'w2'")
    claimed, _ = await claim(lease)
    assert [one.id for one in claimed] == ["w2"]
    assert (await claim(other))[0] == []


async def test_a_rate_lets_a_burst_begin_and_what_had_begun_before_go_on(db: Database) -> None:
    """What comes back after a wait or a crash does not count again, even when nothing new may begin."""
    lease = await db.lease()
    await limited(db, rate_count=2, rate_period=1000.0, rate_burst=2)
    await waiting(db, 5)
    claimed, room = await claim(lease)
    assert room is not None
    assert ([one.id for one in claimed], room.tokens) == (["w1", "w2"], 2)
    claimed, room = await claim(lease)
    assert room is not None
    assert (claimed, room.is_held, room.is_busy) == ([], True, False)
    assert room.rate_for is not None
    assert 400 < room.rate_for <= 500
    await db.rows("UPDATE dbosflow.workflow SET epoch = 1, priority = -1 WHERE id = 'w5'")
    claimed, _ = await claim(lease)
    assert [one.id for one in claimed] == ["w5"]
    await db.rows("UPDATE dbosflow.queue SET rate_next_at = rate_next_at - interval '500 seconds'")
    claimed, _ = await claim(lease)
    assert [one.id for one in claimed] == ["w3"]


async def test_what_cannot_be_taken_now_does_not_hide_that_a_rate_holds_up_the_rest(db: Database) -> None:
    """A suspect is first, and this worker takes none: it looks again as soon as the next one may begin."""
    lease = await db.lease()
    await limited(db, rate_count=20, rate_period=1.0, rate_burst=1)
    await waiting(db, 1, prefix="suspect")
    await db.rows("UPDATE dbosflow.workflow SET epoch = 3, recoveries = 3")
    await waiting(db, 2)
    woken = asyncio.Event()
    announced: list[str] = []
    limits = QueueLimits(
        "q", pool=cast("Any", None), schema=SCHEMA, wakeups=Wakeups(), announce=announced.extend, wake=woken.set
    )
    which: dict[str, Any] = {"freed": 0, "limit": 5, "names": [NAME], "suspects": False}
    found: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < 2:
            claimed, again = await limits.claim(lease.connection, lease.id, **which) or ([], False)
            found += [one.id for one in claimed]
            if not again and len(found) < 2:
                await woken.wait()
                woken.clear()
    limits.close()
    assert found == ["w1", "w2"]


async def test_a_pause_that_has_ended_is_no_reason_to_look_again(db: Database) -> None:
    """The row says for ever that there was one: nobody waits for that."""
    lease = await db.lease()
    await limited(db, paused=True, pause_ends_at=1.0)
    _, room = await claim(lease)
    assert room is not None
    assert (room.is_open, room.paused_for) == (True, None)


async def test_a_rate_is_not_held_up_by_a_clock_that_was_put_back(db: Database) -> None:
    """The state of a rate is a time, and when it was set: where that is still to come, it is as far ahead as then."""
    lease = await db.lease()
    await limited(db, rate_count=10, rate_period=1.0, rate_burst=10)
    await waiting(db, 11)
    assert len((await claim(lease, limit=1))[0]) == 1
    later = "interval '1 day' + interval '100 milliseconds'"
    await db.rows(f"UPDATE dbosflow.queue SET rate_next_at = now() + {later}, rate_moved_at = now() + interval '1 day'")
    assert len((await claim(lease, limit=20))[0]) == 9


async def test_another_rate_begins_without_a_burst_and_the_same_one_goes_on(db: Database) -> None:
    """So a program that applies its limits at each start does not gain a burst by that."""
    lease = await db.lease()
    rate: dict[str, Any] = {"rate_count": 5, "rate_period": 1000.0, "rate_burst": 5}
    await limited(db, **rate)
    await waiting(db, 10)
    assert len((await claim(lease, limit=3))[0]) == 3
    await limited(db, **rate)
    claimed, room = await claim(lease)
    assert room is not None
    assert (len(claimed), room.tokens) == (2, 2)
    await limited(db, rate_count=100, rate_period=1000.0, rate_burst=100)
    _, room = await claim(lease)
    assert room is not None
    assert (room.tokens, room.is_held) == (0, True)


@dataclass
class Crew:
    """Workers that do at random what workers do, and what happens to them."""

    db: Database
    dice: random.Random
    leases: list[WorkerLease] = field(default_factory=list)
    held: dict[str, tuple[WorkerLease, Claimed]] = field(default_factory=dict)

    async def act(self) -> None:
        """One thing, or several at a time."""
        acts = [self.take, self.take, self.finish, self.finish, self.give_back, self.die, self.change]
        await self.dice.choice(acts)()

    async def take(self) -> None:
        """Several claim at a time, some of which have not heard of limits or of their end."""
        while len(self.leases) < 4:
            self.leases.append(await self.db.lease())

        async def one(lease: WorkerLease) -> None:
            which: dict[str, Any] = {
                "worker_id": lease.id,
                "queue": "q",
                "names": [NAME],
                "limit": self.dice.randint(1, 4),
            }
            if self.dice.random() < 0.3:
                claimed = await workflow.claim(lease.connection, SCHEMA, **which)
            else:
                hinted = self.dice.sample(["", "1", "2", "3", "4"], self.dice.randint(0, 2))
                claimed, _ = await queue.claim(lease.connection, SCHEMA, hinted=hinted, **which)
            self.held |= {got.id: (lease, got) for got in claimed}

        await asyncio.gather(*map(one, self.leases))

    async def finish(self) -> None:
        """Some end."""
        for name in self.dice.sample(sorted(self.held), min(2, len(self.held))):
            lease, got = self.held.pop(name)
            await end(lease, got)

    async def give_back(self) -> None:
        """One is returned to its queue."""
        if self.held:
            lease, got = self.held.pop(self.dice.choice(sorted(self.held)))
            await workflow.release(lease.connection, SCHEMA, lease.id, [(got.id, got.epoch)])

    async def die(self) -> None:
        """A worker dies while the others claim."""
        if self.leases:
            dead = self.leases.pop(self.dice.randrange(len(self.leases)))
            self.held = {name: one for name, one in self.held.items() if one[0] is not dead}
            await self.db.reclaim(dead)
            await asyncio.gather(self.db.requeue(max_recoveries=1000), self.take())
            await dead.connection.close()

    async def change(self) -> None:
        """The limits are others, or removed, while workers claim."""
        if self.dice.random() < 0.3:
            await asyncio.gather(queue.delete(self.db.admin, SCHEMA, "q"), self.take())
            return
        limits: dict[str, Any] = {
            "concurrency": self.dice.choice([None, 1, 2, 3, 5]),
            "worker_concurrency": self.dice.choice([None, 1, 2]),
            "partition_concurrency": self.dice.choice([None, 1, 2]),
            "weights": self.dice.choice([None, '{"1": 2, "2": 3}']),
            "paused": self.dice.random() < 0.1,
        }
        await asyncio.gather(limited(self.db, **limits), self.take())


@pytest.mark.parametrize("seed", range(4))
async def test_limits_hold_through_deaths_and_changes(db: Database, seed: int) -> None:
    """At the commit of each claim; and when all is over, everything can be run."""
    await watch(db)
    await waiting(db, 60, partitions=3)
    crew = Crew(db, random.Random(seed))
    for _ in range(60):
        await crew.act()
    assert await beyond(db) == []
    await limited(db, concurrency=2, worker_concurrency=None, partition_concurrency=1, paused=False)
    async with asyncio.timeout(60):
        while await db.rows("SELECT 1 FROM dbosflow.workflow WHERE ended_at IS NULL LIMIT 1"):
            await crew.take()
            await crew.finish()
    assert await beyond(db) == []
    ((checked,),) = await db.rows("SELECT count(*) FROM public.status_log WHERE allowed IS NOT NULL")
    assert checked > 10
