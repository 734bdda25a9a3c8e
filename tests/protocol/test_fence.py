"""The fence: a batch is written by a live owner or not at all, and the next owner sees all that was written.

The schedules are those in which an epoch condition without a lock lost records.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from dbosflow._store import worker
from dbosflow._store.batch import write_batch
from tests.protocol.schedules import ROWS, SCHEMA, Database, Slice, batch

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("all_forms")

SLICES: dict[str, Callable[[int], Slice]] = {
    "record": lambda epoch: Slice("w", epoch).record("a"),
    "block": lambda epoch: Slice("w", epoch).values(0, 3),
    "end": lambda epoch: Slice("w", epoch).end(),
    "all": lambda epoch: Slice("w", epoch).record("a").values(0, 3).closed(3).end(),
}
HELD = {
    "record": """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, started_at)
                 VALUES ('w', 'alone', 'step', 0, 0, 0, now())""",
    "value": """INSERT INTO dbosflow.stream_block
                    (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
                VALUES ('w', 'out', 0, 1, 'values', '[1]', 3, '', 0, 0)""",
    "start": "INSERT INTO dbosflow.workflow (id, name, status, input) VALUES ('new', 'flow', 'queued', '{}')",
    "end": "UPDATE dbosflow.workflow SET priority = 1 WHERE id = 'w'",
}
"""What somebody else does first to each row of ``ROWS``."""
each_row = pytest.mark.parametrize("kind", ROWS)
each_slice = pytest.mark.parametrize("part", SLICES.values(), ids=SLICES)


@each_slice
async def test_a_batch_for_another_timeline_is_not_written(db: Database, part: Callable[[int], Slice]) -> None:
    """Behind a pooler, where no connection breaks when a standby takes over that lacks the last commits."""
    lease = await (await db.lease()).start("w")
    rows = batch(part(1))
    refused = await write_batch(lease.connection, rows, lease.id, SCHEMA, "FFFFFFFF")
    assert (refused.leased, refused.written) == (True, False)
    assert await db.stored("w") == (set(), [])
    assert refused.timeline is not None
    assert (await write_batch(lease.connection, rows, lease.id, SCHEMA, refused.timeline)).written


@each_slice
async def test_a_worker_with_a_batch_under_way_does_not_die(db: Database, part: Callable[[int], Slice]) -> None:
    """It has its snapshot and waits for something: a death then would let it commit behind the new owner's back."""
    old, new = await db.lease(), await db.lease()
    await old.start("w", "other")
    held = await db.hold_key("other")
    writing = asyncio.create_task(old.write(Slice("other").record("held"), part(1)))
    await db.waiting(old.connection)

    assert await db.reclaim(old) == set()
    assert await db.requeue() == {}

    await held.rollback()
    assert (await writing).written
    expected = await db.stored("w")
    ended = (await db.workflow("w"))[0] == "succeeded"

    assert await db.reclaim(old) == {old.id}
    assert set(await db.requeue()) == ({"other"} if ended else {"other", "w"})
    claimed = {one.id: one.epoch for one in await new.claim()}
    assert claimed.get("w") == (None if ended else 3)
    history = await db.history("w")
    assert set(history.records) == expected[0]
    assert history.tails == ({"out": expected[1][-1][0] + expected[1][-1][1]} if expected[1] else {})


@each_slice
async def test_a_dead_worker_writes_nothing(db: Database, part: Callable[[int], Slice]) -> None:
    """Neither before its run has a new owner nor after that."""
    old, new = await db.lease(), await db.lease()
    await old.start("w")
    assert await db.reclaim(old) == {old.id}
    for _ in range(2):
        result = await old.write(part(1))
        assert not result.leased
        assert not result.written
        assert await db.stored("w") == (set(), [])
        await db.requeue()
        await new.claim()
    assert await db.workflow("w") == ("running", new.id, 3)


async def test_a_dead_worker_starts_and_claims_nothing(db: Database) -> None:
    """Such a run would belong to a worker that nobody ever reclaims again."""
    old, new = await db.lease(), await db.lease()
    await new.start("queued")
    assert await db.reclaim(old, new) == {old.id, new.id}
    assert await db.requeue() == {"queued": "queued"}
    assert not (await old.write(starts=("w",))).written
    assert await old.claim() == []
    await db.rows("DELETE FROM dbosflow.worker")
    assert not (await old.write(starts=("w",))).written
    assert await old.claim() == []
    assert await db.workflow("w") == ()
    assert (await db.workflow("queued"))[0] == "queued"


async def test_a_renewal_does_not_wait_for_a_batch_and_a_death_is_no_plain_update(db: Database) -> None:
    """An update of no key column passes ``FOR KEY SHARE``: good for renewals, and why death is ``FOR UPDATE``."""
    lease = await db.lease()
    await lease.start("w")
    held = await db.hold_key("w")
    writing = asyncio.create_task(lease.write(Slice("w").record("held")))
    await db.waiting(lease.connection)

    def renew() -> set[object]:
        with psycopg.connect(db.url, autocommit=True, options="-c lock_timeout=5s") as connection:
            return set(worker.renew(connection, SCHEMA, [lease.id]))

    assert await asyncio.to_thread(renew) == {lease.id}
    await db.rows("BEGIN")
    await db.rows("UPDATE dbosflow.worker SET state = 'dead' WHERE id = %s", lease.id)
    await db.rows("ROLLBACK")
    assert await db.reclaim(lease) == set()
    await held.rollback()
    assert (await writing).written


async def test_a_release_waits_for_a_batch_that_lost_its_connection(db: Database) -> None:
    """The engine has given it up, the server has not: released at once, the worker's runs would lose that record."""
    lease = await db.lease()
    await lease.start("w")
    held = await db.hold_key("w")
    old_session = await db.lease(lease.id)
    writing = asyncio.create_task(old_session.write(Slice("w").record("held")))
    await db.waiting(old_session.connection)
    releasing = asyncio.create_task(worker.release(lease.connection, SCHEMA, lease.id))
    await db.waiting(lease.connection)
    assert await db.requeue() == {}
    await held.rollback()
    assert (await writing).written
    await releasing
    assert await db.requeue() == {"w": "queued"}
    assert set((await db.history("w")).records) == {"held"}


@each_row
async def test_a_row_under_way_keeps_its_worker_alive(db: Database, kind: str) -> None:
    """Alone in its batch, and waiting for what somebody else does to it; an end also sees that done, and is written."""
    lease = await db.lease()
    await lease.start("w")
    held = await db.connect(autocommit=False)
    await held.execute(HELD[kind].encode())
    writing = asyncio.create_task(lease.send(ROWS[kind]("w", 0)))
    await db.waiting(lease.connection)

    assert await db.reclaim(lease) == set()
    assert await db.requeue() == {}

    await (held.commit() if kind == "end" else held.rollback())
    result = await writing
    assert result.written
    assert result.started == ({"new"} if kind == "start" else set())
    assert await db.reclaim(lease) == {lease.id}
    assert set(await db.requeue()) == {"record": {"w"}, "value": {"w"}, "start": {"w", "new"}, "end": set()}[kind]


@each_row
async def test_a_batch_waits_for_a_death_in_progress_and_then_writes_nothing(db: Database, kind: str) -> None:
    """It wakes to find no lease; and where the death is called off, it goes on."""
    lease = await db.lease()
    await lease.start("w")
    for decide, written in (("COMMIT", False), ("ROLLBACK", True)):
        await db.rows("BEGIN")
        assert await db.reclaim(lease) == {lease.id}
        writing = asyncio.create_task(lease.send(ROWS[kind]("w", 0)))
        await db.waiting(lease.connection)
        await db.rows(decide)
        result = await writing
        assert (result.leased, result.written) == (written, written)
        assert result.started == ({"new"} if written and kind == "start" else set())
        stored = await db.stored("w"), (await db.workflow("w"))[0], await db.workflow("new")
        assert (stored == ((set(), []), "running", ())) is not written
        await db.rows("UPDATE dbosflow.worker SET state = 'live'")


async def test_a_worker_that_was_renewed_meanwhile_does_not_die(db: Database) -> None:
    """What the reclaimer saw is no longer so."""
    lease = await db.lease()
    seen = await worker.survey(db.admin, SCHEMA)

    def renew() -> None:
        with psycopg.connect(db.url, autocommit=True) as connection:
            assert worker.renew(connection, SCHEMA, [lease.id]) == {lease.id}

    await asyncio.to_thread(renew)
    assert await worker.mark_dead(db.admin, SCHEMA, seen, "expired") == set()
    assert await db.reclaim(lease) == {lease.id}


@each_slice
async def test_an_ended_run_is_nobodys(db: Database, part: Callable[[int], Slice]) -> None:
    """Its worker is live and its epoch stands, but it has no owner any more: no record follows an end."""
    lease = await db.lease()
    await lease.start("w")
    assert (await lease.write(Slice("w").end())).written
    result = await lease.write(part(1))
    assert (result.leased, result.written) == (True, False)
    assert result.mine == set()
    assert await db.stored("w") == (set(), [])
    assert await db.workflow("w") == ("succeeded", None, 1)


async def test_an_epoch_alone_is_no_owner(db: Database) -> None:
    """After a failover that lost a claim, two workers can hold a run at the same epoch; the row names one of them."""
    one, other = await db.lease(), await db.lease()
    await one.start("w")
    assert (await other.write(Slice("w", 1).record("a"))).mine == set()
    assert (await one.write(Slice("w", 2).record("a"))).mine == set()
    assert (await one.write(Slice("w", 1).record("a"))).written


async def test_a_batch_is_written_whole_or_not_at_all(db: Database) -> None:
    """One run that is not mine, or one stream that moved, and nobody's rows are in; without it the rest goes."""
    lease, other = await db.lease(), await db.lease()
    await lease.start("a", "b")
    await other.start("foreign")

    def good(seq: int) -> Slice:
        return Slice("a").record(f"step {seq}", seq=seq).values(seq)

    assert (await lease.write(good(0), Slice("b").values(0))).written

    result = await lease.write(good(1), Slice("b").record("x"), Slice("foreign").record("x"), starts=("new",))
    assert (result.leased, result.written) == (True, False)
    assert result.mine == {"a", "b"}
    result = await lease.write(good(1), Slice("b").values(0).end(), starts=("new",))
    assert (result.leased, result.written) == (True, False)
    assert (set(result.mine), set(result.moved)) == ({"a", "b"}, {"b"})
    assert await db.stored("a") == ({"step 0"}, [(0, 1, "values")])
    assert await db.stored("b") == (set(), [(0, 1, "values")])
    assert await db.workflow("new") == ()

    assert (await lease.write(good(1), starts=("new",))).started == {"new"}
    assert (await db.stored("a"))[1] == [(0, 1, "values"), (1, 1, "values")]


async def test_a_worker_that_never_was_has_no_lease(db: Database) -> None:
    """An unknown id is refused like a dead one."""
    lease = await db.lease(uuid4())
    assert not (await lease.write(starts=("w",))).leased
