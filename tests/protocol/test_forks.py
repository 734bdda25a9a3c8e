"""Forks beside what else may be under way: an owner that writes, a trim, a compaction, a removal, another fork."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._store import fork, retention
from dbosflow._store.batch_rows import StartRow
from dbosflow._store.fork import Forked, ForkRequest
from dbosflow._store.queries import fetch_all
from tests.protocol.schedules import NAME, SCHEMA, Slice, batch

if TYPE_CHECKING:
    import psycopg

    from tests.protocol.schedules import Database, WorkerLease

OLD = (
    "UPDATE dbosflow.workflow SET created_at = created_at - interval '3 days', ended_at = ended_at - interval '2 days'"
)


async def forked(session: psycopg.AsyncConnection[Any], turn: int, fork_id: str = "f", **how: Any) -> Forked | None:
    return await fork.fork(session, SCHEMA, ForkRequest("w", fork_id, turn, **how))


async def held(db: Database) -> psycopg.AsyncConnection[Any]:
    """A session in a transaction: what it does is under way until its COMMIT."""
    session = await db.connect()
    await session.execute("BEGIN")
    return session


async def written(lease: WorkerLease, *turns: int) -> None:
    """A record and a value in each turn."""
    for turn in turns:
        await lease.write(with_turn(Slice("w").record(f"r{turn}", seq=turn).values(turn), turn))


def with_turn(part: Slice, turn: int) -> Slice:
    part.blocks = [block._replace(turn=turn) for block in part.blocks]
    return part


async def test_a_batch_that_is_under_way_is_in_a_fork_as_a_whole_or_not_at_all(db: Database) -> None:
    """Neither waits for the other."""
    lease, session = await db.lease(), await db.connect()
    await lease.start("w")
    await written(lease, 0, 1)
    writer = await db.lease(lease.id)
    await writer.connection.execute("BEGIN")
    await writer.write(with_turn(Slice("w").record("r2", seq=2).values(2), 2))
    assert await forked(session, 5) == Forked()
    await writer.connection.execute("COMMIT")
    assert await forked(session, 5, "later") == Forked()
    assert await db.stored("f") == ({"r0", "r1"}, [(0, 1, "values"), (1, 1, "values")])
    assert await db.stored("later") == ({"r0", "r1", "r2"}, [(offset, 1, "values") for offset in range(3)])


async def test_a_fork_begins_before_the_record_of_its_turn(db: Database) -> None:
    lease, session = await db.lease(), await db.connect()
    await lease.start("w")
    await written(lease, 0, 1, 2)
    await forked(session, 1)
    assert await db.stored("f") == ({"r0"}, [(0, 1, "values")])
    assert await db.workflow("f") == ("queued", None, 1)
    ((claimed, epoch),) = [(one.id, one.epoch) for one in await lease.claim()]
    assert (claimed, epoch) == ("f", 2), "it loads its history, and names its attempts otherwise"


async def test_a_trim_under_way_loses_no_count(db: Database) -> None:
    """The fork has all blocks, or what is left of them and the counts of the others: one snapshot of both tables."""
    lease, session, trimming = await db.lease(), await db.connect(), await held(db)
    await lease.start("w")
    await written(lease, *range(4))
    await lease.write(Slice("w").end())
    await retention.trim(trimming, SCHEMA, "w", "out", 2)
    assert await forked(session, 4) == Forked()
    await trimming.execute("COMMIT")
    assert await forked(session, 4, "later") == Forked()
    count = """SELECT b.workflow_id, sum(b.count) + coalesce((SELECT sum(t.count) FROM dbosflow.stream_trim t
                                                           WHERE t.workflow_id = b.workflow_id), 0), min(b."offset")
               FROM dbosflow.stream_block b WHERE kind = 'values' GROUP BY 1 ORDER BY 1"""
    assert await db.rows(count) == [("f", 4, 0), ("later", 4, 2), ("w", 4, 2)]
    refused = await forked(session, 2, "too early")
    assert refused == Forked(truncated=("out", 2))


async def test_a_fork_waits_for_a_compaction(db: Database) -> None:
    lease, session, compacting = await db.lease(), await db.connect(), await held(db)
    await lease.start("w")
    await written(lease, *range(4))
    await lease.write(Slice("w").end())
    await retention.compact(compacting, SCHEMA, "w", "out", 0, max_blocks=10, max_bytes=10_000)
    forking = asyncio.create_task(forked(session, 2))
    await db.waiting(session)
    await compacting.execute("COMMIT")
    assert await forking == Forked()
    assert await db.stored("f") == ({"r0", "r1"}, []), "the joined block is of turn 3: its values are written again"
    await forked(session, 4, "whole")
    assert (await db.stored("whole"))[1] == [(0, 4, "values")]


async def test_two_forks_under_one_id_are_one(db: Database) -> None:
    """The second one waits, and finds the first; with another turn the id is taken."""
    lease, first, second = await db.lease(), await held(db), await db.connect()
    await lease.start("w")
    await written(lease, 0, 1)
    await forked(first, 1)
    forking = asyncio.create_task(forked(second, 1))
    await db.waiting(second)
    await first.execute("COMMIT")
    assert await forking == Forked()
    assert await forked(second, 2) == Forked(taken=True)
    assert await forked(second, 1, output='"x"', step_key="r1") == Forked(taken=True)
    assert (await db.stored("f"))[0] == {"r0"}


async def parent_and_child(db: Database) -> None:
    """An ended parent with an ended child, whose result it has on record in turn 1; both old."""
    lease = await db.lease()
    await lease.start("w")
    start = Slice("w").record("c#0", seq=0)
    start.records = [record._replace(kind="child", child_id="w/c#0", output=None) for record in start.records]
    rows = batch(start)
    rows.starts = [StartRow("w/c#0", NAME, "", 0, "{}", "w", "c#0", None, owned=True)]
    await lease.send(rows)
    await lease.write(Slice("w/c#0").end())
    told = Slice("w").record("result#0", seq=1)
    told.records = [record._replace(kind="result", child_id="w/c#0") for record in told.records]
    await lease.write(told)
    await lease.write(Slice("w").end())
    await db.rows(OLD)


async def test_a_child_that_a_fork_under_way_may_wait_for_is_not_removed(db: Database) -> None:
    await parent_and_child(db)
    forking, pruning = await held(db), await db.connect()
    await forked(forking, 1)
    assert await retention.prune(pruning, SCHEMA, 3600.0, 10) == 0
    await forking.execute("COMMIT")
    assert await retention.prune(pruning, SCHEMA, 3600.0, 10) == 0
    await db.rows("UPDATE dbosflow.workflow SET status = 'failed', ended_at = now() WHERE id = 'f'")
    assert await retention.prune(pruning, SCHEMA, 3600.0, 10) == 2


async def test_a_fork_whose_child_is_being_removed_is_not_made(db: Database) -> None:
    """It waits for the removal, and takes back what it had written."""
    await parent_and_child(db)
    await db.rows("UPDATE dbosflow.workflow SET ended_at = now() WHERE id = 'w'")
    forking, pruning = await db.connect(), await held(db)
    assert await retention.prune(pruning, SCHEMA, 3600.0, 10) == 1
    forks = asyncio.create_task(forked(forking, 1))
    await db.waiting(forking)
    await pruning.execute("COMMIT")
    assert await forks == Forked(missing="w/c#0")
    assert await db.workflow("f") == ()
    assert await forked(forking, 2) == Forked(), "behind its result nobody asks for it"


async def test_the_removal_sees_a_fork_that_the_choice_did_not(db: Database) -> None:
    """It is a later statement: a fork was committed before the lock, and after the snapshot of the choice."""
    await parent_and_child(db)
    session = await db.connect()
    await forked(session, 1)
    removed = await fetch_all(session, SCHEMA, "retention", "remove", ids=["w", "w/c#0"])
    assert removed == []


@pytest.mark.parametrize("never_ran", [True, False])
async def test_a_cancelled_fork_ends_by_its_owner(db: Database, *, never_ran: bool) -> None:
    """One of a workflow that had run counts as one that ran: it may have written, and closes its streams itself."""
    lease, session = await db.lease(), await db.connect()
    if never_ran:
        await db.rows("INSERT INTO dbosflow.workflow (id, name, status, input) VALUES ('w', %s, 'queued', '{}')", NAME)
    else:
        await lease.start("w")
        await written(lease, 0)
    await forked(session, 0)
    assert (await db.workflow("f"))[2] == (0 if never_ran else 1)
