"""The end of an iteration beside what else may be under way: a cancel, a death, a removal of earlier records."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow._store import iteration
from dbosflow._store.batch import is_durable
from dbosflow._store.carried import Carried, ReadPlace, StreamPlace
from tests.protocol.schedules import SCHEMA, Slice, batch, cancel

if TYPE_CHECKING:
    from tests.protocol.schedules import Database

forms = pytest.mark.usefixtures("all_forms")
CARRIED = Carried(
    {"out": StreamPlace(2, 2, 9), 'a "name"\n': StreamPlace(7, 7, 70)},
    {"in": ReadPlace(3, (5,))},
    {"": ReadPlace(1, (), 1)},
)


async def iteration_of(db: Database, workflow_id: str = "w") -> tuple[int | None, object]:
    """The iteration of a workflow, and the arguments of that."""
    ((number, arguments),) = await db.rows("SELECT iteration, input FROM dbosflow.workflow WHERE id = %s", workflow_id)
    return number, arguments


@forms
async def test_a_continuation_is_written_with_all_that_came_before_it(db: Database) -> None:
    lease = await (await db.lease()).start("w", "other")
    result = await lease.write(Slice("w").record("a").values(0).continued(1, seq=1), Slice("other").end())
    assert result.written
    assert await iteration_of(db) == (1, {"n": 1})
    assert (await db.stored("w"))[0] == {"a", "~1"}
    assert (await db.workflow("w"))[0] == "running"
    assert await iteration_of(db, "other") == (None, {})


@forms
async def test_none_is_written_once_a_cancel_stands(db: Database) -> None:
    """Nor anything that comes with it; the rest of the statement goes without it, and the end as cancelled follows."""
    lease = await (await db.lease()).start("w", "other")
    await cancel(db.admin, "w")
    result = await lease.write(Slice("w").record("a").continued(1, seq=1), Slice("other").record("b"))
    assert (result.leased, result.written, set(result.cancelled)) == (True, False, {"w"})
    assert await db.stored("w") == (set(), [])
    assert (await lease.write(Slice("w").end("cancelled"), Slice("other").record("b"))).written
    assert await iteration_of(db) == (None, {})


@forms
async def test_a_cancel_in_the_same_instant_comes_first(db: Database) -> None:
    """It commits after the statement has taken its snapshot, and before that has reached the row."""
    lease = await (await db.lease()).start("w")
    held = await db.connect(autocommit=False)
    await cancel(held, "w")
    continuing = asyncio.create_task(lease.write(Slice("w").continued(1)))
    await db.waiting(lease.connection)
    await held.commit()
    with pytest.raises(psycopg.errors.DivisionByZero):  # all rolled back: sent again, it sees the cancel
        await continuing
    assert not (await lease.write(Slice("w").continued(1))).written
    assert await iteration_of(db) == (None, {})


async def test_a_cancel_behind_it_is_there_for_the_next_iteration(db: Database) -> None:
    """It waits for the statement, and its answer is that of the next batch."""
    lease = await (await db.lease()).start("w")
    await lease.connection.execute("BEGIN")
    await lease.write(Slice("w").continued(1))
    cancelling = asyncio.create_task(cancel(db.admin, "w"))
    await db.waiting(db.admin)
    await lease.connection.execute("COMMIT")
    assert [row["status"] for row in await cancelling] == ["running"]
    assert set((await lease.write(Slice("w").record("~1/a", seq=1))).cancelled) == {"w"}
    assert not (await lease.write(Slice("w").continued(2, seq=2))).written


@forms
async def test_an_owner_that_was_replaced_continues_nothing(db: Database) -> None:
    """By its lease, or by its epoch."""
    lease = await (await db.lease()).start("w", "x")
    assert not (await lease.write(Slice("w", epoch=2).continued(1))).written
    await db.rows("UPDATE dbosflow.worker SET state = 'dead'")
    assert not (await lease.write(Slice("x").continued(1))).written
    assert await iteration_of(db) == await iteration_of(db, "x") == (None, {})


async def test_its_record_shows_that_it_was_written(db: Database) -> None:
    """The answer is lost; and a late copy of the statement writes nothing."""
    lease = await (await db.lease()).start("w")
    rows = batch(Slice("w").continued(1))
    assert not await is_durable(db.admin, rows, lease.id, SCHEMA)
    await lease.send(rows)
    assert await is_durable(db.admin, rows, lease.id, SCHEMA)
    with pytest.raises(psycopg.errors.UniqueViolation):
        await lease.send(rows)


async def test_a_history_is_that_of_the_last_iteration(db: Database) -> None:
    """With what the one before has handed on: where streams end, and how far they were read."""
    lease = await (await db.lease()).start("w")
    await lease.write(Slice("w").record("a").values(0, 2).values(0, 3, key="done").closed(3, key="done"))
    await lease.write(Slice("w").record("b", seq=1).continued(1, CARRIED, seq=2))
    history = await db.history("w")
    assert (history.records, history.iteration, history.arguments) == ({}, 1, '{"n": 1}')
    assert (history.carried, history.next_place) == (CARRIED, (3, 3))
    assert (history.tails, history.closed) == ({"out": 2, 'a "name"\n': 7, "done": 4}, {"done"})
    assert (history.values["out"], history.bytes["out"]) == (2, 9)
    assert not [one for one in history.produced.values() if one]
    later = Slice("w").record("~1/a", seq=3).values(2, 3)
    later.blocks = [block._replace(producer="~1", producer_seq=0, turn=3) for block in later.blocks]
    await lease.write(later)
    history = await db.history("w")
    assert ({*history.records}, history.tails["out"], history.values["out"]) == ({"~1/a"}, 5, 5)
    assert {source: count for source, count in history.produced.items() if count} == {("out", "~1"): 3}


async def test_only_earlier_iterations_are_removed_and_no_record_that_commits_values(db: Database) -> None:
    lease = await (await db.lease()).start("w", "never")
    told = Slice("w").record("told", seq=0).record("plain", seq=1).values(0)
    told.blocks = [block._replace(producer="told@1.1", attempt="1.1") for block in told.blocks]
    await lease.write(told, Slice("never").record("a"))
    assert await iteration.remove_earlier(db.admin, SCHEMA, "w", 10) == 0
    await lease.write(Slice("w").continued(1, seq=2))
    await lease.write(Slice("w").record("~1/a", seq=3))
    await lease.write(Slice("w").continued(2, seq=4))
    assert await iteration.remove_earlier(db.admin, SCHEMA, "w", 2) == 2
    assert await iteration.remove_earlier(db.admin, SCHEMA, "w", 2) == 1
    assert await iteration.remove_earlier(db.admin, SCHEMA, "w", 2) == 0
    assert (await db.stored("w"))[0] == {"told", "~2"}
    await db.rows("DELETE FROM dbosflow.stream_block")
    assert await iteration.remove_earlier(db.admin, SCHEMA, "w", 2) == 1
    assert await iteration.remove_earlier(db.admin, SCHEMA, "never", 2) == 0
    assert (await db.stored("never"))[0] == {"a"}


async def test_two_that_remove_do_not_wait_for_each_other(db: Database) -> None:
    lease, other = await (await db.lease()).start("w"), await db.connect()
    await lease.write(Slice("w").record("a").continued(1, seq=1))
    await db.admin.execute("BEGIN")
    assert await iteration.remove_earlier(db.admin, SCHEMA, "w", 2) == 1
    assert await iteration.remove_earlier(other, SCHEMA, "w", 2) == 0
    await db.admin.execute("COMMIT")
