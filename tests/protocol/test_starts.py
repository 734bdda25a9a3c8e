"""Start once: the workflow id is the key, whichever start comes first, and nobody waits for another in a circle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbosflow._store import workflow
from dbosflow._store.batch_rows import BatchRows, StartRow
from dbosflow._store.start_options import StartOptions
from dbosflow._store.workflow import Enqueued
from tests.protocol.schedules import NAME, SCHEMA, Database, Slice, WorkerLease, batch

pytestmark = pytest.mark.usefixtures("all_forms")

IDS = tuple("abcdefgh")
MIDDLE = "d"


@pytest.mark.parametrize("way", ["start", "enqueue"])
async def test_two_processes_that_name_the_same_ids_in_opposite_order_do_not_deadlock(db: Database, way: str) -> None:
    """Each statement inserts in the order of the ids, so the later one waits at the first of them."""
    one, other = await db.lease(), await db.lease()
    in_the_way = await db.connect()
    await in_the_way.execute("BEGIN")
    await workflow.enqueue(in_the_way, SCHEMA, [Enqueued(MIDDLE, NAME, "", 0, "{}")])

    async def insert(lease: WorkerLease, ids: tuple[str, ...]) -> set[str]:
        if way == "start":
            return set((await lease.write(starts=ids)).started)
        return await workflow.enqueue(lease.connection, SCHEMA, [Enqueued(each, NAME, "", 0, "{}") for each in ids])

    backwards = asyncio.create_task(insert(one, IDS[::-1]))
    await db.waiting(one.connection)  # it has whatever it took before the middle
    forwards = asyncio.create_task(insert(other, IDS))
    await db.waiting(other.connection)
    await in_the_way.execute("ROLLBACK")
    assert await backwards == set(IDS)
    assert await forwards == set()


async def test_the_loser_of_a_race_sees_the_winner_in_a_later_statement(db: Database) -> None:
    """Its own statement sees neither its row nor the other's: that began before the winner's commit."""
    one, other = await db.lease(), await db.lease()
    await one.connection.execute("BEGIN")
    await one.start("w")
    starting = asyncio.create_task(other.write(starts=("w", "v")))
    await db.waiting(other.connection)
    await one.connection.execute("COMMIT")
    result = await starting
    assert result.written
    assert result.started == {"v"}
    found = await workflow.started(other.connection, SCHEMA, ["w", "v"])
    assert {each: row.worker_id for each, row in found.items()} == {"w": one.id, "v": other.id}


async def test_an_id_twice_in_one_statement_is_started_once(db: Database) -> None:
    """The second of the two conflicts with the first like with any other row."""
    lease = await db.lease()
    assert (await lease.write(starts=("w", "w"))).started == {"w"}
    twice = [Enqueued("v", NAME, "", 0, "{}")] * 2
    assert await workflow.enqueue(db.admin, SCHEMA, twice) == {"v"}
    assert len(await db.rows("SELECT 1 FROM dbosflow.workflow")) == 2


async def test_an_ended_workflow_is_not_started_again(db: Database) -> None:
    """Nor is one that waits in a queue, or runs elsewhere: its row stands as it is."""
    lease = await db.lease()
    await lease.start("w")
    await db.rows("UPDATE dbosflow.workflow SET status = 'succeeded', worker_id = NULL, output = '1'")
    before = await db.rows("SELECT * FROM dbosflow.workflow")
    assert (await lease.write(starts=("w",))).started == set()
    assert await workflow.enqueue(db.admin, SCHEMA, [Enqueued("w", NAME, "", 0, "{}")]) == set()
    assert await db.rows("SELECT * FROM dbosflow.workflow") == before


async def test_a_queued_workflow_is_claimed_once_in_the_order_of_its_queue(db: Database) -> None:
    """Claimers skip what another has under way; lower priority numbers first, then the older ones."""
    one, other = await db.lease(), await db.lease()
    rows = [Enqueued(f"w{number}", NAME, "", -(number // 3), "{}") for number in range(6)]
    for row in rows:
        await workflow.enqueue(db.admin, SCHEMA, [row])
    await workflow.enqueue(db.admin, SCHEMA, [Enqueued("unknown", "other flow", "", -9, "{}")])
    await one.connection.execute("BEGIN")
    assert [each.id for each in await one.claim(2)] == ["w3", "w4"]
    assert [each.id for each in await other.claim(2)] == ["w5", "w0"]
    await one.connection.execute("COMMIT")
    assert {each.id for each in await one.claim()} == {"w1", "w2"}
    assert await other.claim() == []
    assert (await db.workflow("unknown"))[0] == "queued"


async def test_a_claim_whose_answer_was_lost_is_found_by_its_worker(db: Database) -> None:
    """The row names the worker: what it owns and does not know, it adopts, in a new epoch each time."""
    lease, other = await db.lease(), await db.lease()
    for workflow_id in ("known", "lost"):
        await workflow.enqueue(db.admin, SCHEMA, [Enqueued(workflow_id, NAME, "", 0, "{}")])
    assert len(await lease.claim()) == 2
    ways: tuple[dict[str, Any], ...] = ({"queues": ["", "q"]}, {"workflow_id": "known"}, {"workflow_id": "lost"})
    for which in ways:
        found = await workflow.adopt(lease.connection, SCHEMA, worker_id=lease.id, known=["known"], **which)
        epochs = {each.id: each.epoch for each in found}
        assert epochs == ({} if "known" in which.values() else {"lost": 2 if "queues" in which else 3})
    assert await workflow.adopt(lease.connection, SCHEMA, worker_id=lease.id, queues=["another"], known=[]) == []
    assert await workflow.adopt(other.connection, SCHEMA, worker_id=other.id, queues=[""], known=[]) == []


async def test_an_owner_begins_a_new_pass_only_of_its_own_run(db: Database) -> None:
    """And only once from each epoch: an answer that was lost shows as an epoch that is gone."""
    lease, other = await db.lease(), await db.lease()
    await lease.start("w")
    assert await workflow.renew_epoch(other.connection, SCHEMA, workflow_id="w", worker_id=other.id, epoch=1) is None
    assert await workflow.renew_epoch(lease.connection, SCHEMA, workflow_id="w", worker_id=lease.id, epoch=1) == 2
    assert await workflow.renew_epoch(lease.connection, SCHEMA, workflow_id="w", worker_id=lease.id, epoch=1) is None


async def test_a_claim_waits_for_its_flush(db: Database) -> None:
    """One that a crash forgot would give its epoch away twice: a witness could not tell its owners' rows apart."""
    lease = await db.lease()
    await workflow.enqueue(db.admin, SCHEMA, [Enqueued("w", NAME, "", 0, "{}")])
    await lease.connection.execute("BEGIN")
    assert [one.id for one in await lease.claim()] == ["w"]
    cursor = await lease.connection.execute("SHOW synchronous_commit")
    assert await cursor.fetchone() == ("on",)
    await lease.connection.execute("COMMIT")


async def test_a_claim_that_the_server_has_forgotten_leaves_the_workflow_to_the_next(db: Database) -> None:
    """A server that flushes nothing may lose it in a crash: then its owner writes nothing, at the same epoch."""
    old, new = await db.lease(), await db.lease()
    await workflow.enqueue(db.admin, SCHEMA, [Enqueued("w", NAME, "", 0, "{}")])
    (first,) = await old.claim()
    await db.admin.execute("UPDATE dbosflow.workflow SET status = 'queued', worker_id = NULL, epoch = epoch - 1")
    (second,) = await new.claim()
    assert first.epoch == second.epoch
    late = await old.write(Slice("w", epoch=first.epoch).record("s"))
    assert not late.written
    assert late.mine == frozenset()
    assert (await new.write(Slice("w", epoch=second.epoch).record("s"))).written


OPTIONS = [None, StartOptions(timeout=60.0), None, StartOptions(deadline=4e9), StartOptions(), None]
"""Those of starts in one statement; a deadline in seconds since 1970."""
DEADLINE = """SELECT id, CASE WHEN deadline_at < '2090-01-01' THEN extract(epoch FROM deadline_at - created_at)
              ELSE extract(epoch FROM deadline_at) END::float FROM dbosflow.workflow ORDER BY id"""


@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("way", ["start", "enqueue"])
async def test_each_start_has_the_options_that_it_was_given(db: Database, way: str, count: int) -> None:
    """Whichever of its statement's starts has some, the others have none."""
    lease = await db.lease()
    options = OPTIONS[count - 2 : count] if count == 2 else OPTIONS[:count]
    if way == "start":
        rows = BatchRows()
        for number, one in enumerate(options):
            (row,) = batch(starts=(f"w{number}",)).starts
            rows.add_start(row, one)
        assert (await lease.send(rows)).written
    else:
        queued = [Enqueued(f"w{number}", NAME, "", 0, "{}", (), one) for number, one in enumerate(options)]
        assert len(await workflow.enqueue(lease.connection, SCHEMA, queued)) == len(options)
    expected = [one and (one.timeout or one.deadline) for one in options]
    assert await db.rows(DEADLINE) == [(f"w{number}", value) for number, value in enumerate(expected)]


async def test_a_start_has_the_earliest_of_its_deadlines_and_its_parents(db: Database) -> None:
    """A child has no longer than its parent, also if it names no deadline itself."""
    lease = await db.lease()
    rows = BatchRows()
    (row,) = batch(starts=("parent",)).starts
    rows.add_start(row, StartOptions(timeout=60.0, deadline=4e9))
    assert (await lease.send(rows)).started == {"parent"}
    for child, options in {
        "a": StartOptions(),
        "b": StartOptions(timeout=9.0),
        "c": StartOptions(deadline=4e9),
    }.items():
        (row,) = batch(starts=(child,)).starts
        rows = BatchRows()
        rows.add_start(StartRow._make(row)._replace(parent_id="parent"), options)
        assert (await lease.send(rows)).started == {child}
    same = "SELECT w.id FROM dbosflow.workflow w JOIN dbosflow.workflow p USING (deadline_at) WHERE p.id = 'parent'"
    assert {one for (one,) in await db.rows(same)} == {"parent", "a", "c"}
    assert await db.rows(DEADLINE + " LIMIT 1 OFFSET 1") == [("b", 9.0)]
