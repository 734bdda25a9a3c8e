"""A cancel that answered that it was asked for is final, whatever was under way: an end otherwise is refused.

The owner's answer is checked in the statement that would write the end; see dbosflow/_runtime/execution/canceller.py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow._store import workflow
from tests.protocol.schedules import SCHEMA, Slice, batch, cancel

if TYPE_CHECKING:
    from tests.protocol.schedules import Database

forms = pytest.mark.usefixtures("all_forms")
ONE = {"w"}
otherwise = pytest.mark.parametrize("status", ["succeeded", "failed", "blocked"])


async def cancel_in(db: Database, workflow_id: str, *, children: bool = True) -> dict[str, str]:
    """Asks for it; the ids that it was asked for, and how they stand."""
    return {row["id"]: row["status"] for row in await cancel(db.admin, workflow_id, children=children)}


async def asked(db: Database) -> set[str]:
    """The workflows that somebody has asked to cancel."""
    return {one for (one,) in await db.rows("SELECT id FROM dbosflow.workflow WHERE cancel_requested_at IS NOT NULL")}


async def start_tree(db: Database, **parents: str | None) -> None:
    """Workflows that run elsewhere, each with its parent."""
    for workflow_id, parent in parents.items():
        await db.rows(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, parent_id)
               VALUES (%s, 'flow', 'running', '{}', 1, %s)""",
            *(workflow_id, parent),
        )


@forms
@otherwise
async def test_no_other_end_is_written_once_a_cancel_stands(db: Database, status: str) -> None:
    """Nor anything that comes with it, and the answer says why; its end as cancelled is written."""
    lease = await (await db.lease()).start("w", "other")
    assert await cancel_in(db, "w") == {"w": "running"}
    for part in (Slice("w").end(status), Slice("w").record("a").values(0).end(status)):
        result = await lease.write(part)
        assert (result.leased, result.written, set(result.cancelled)) == (True, False, ONE)
        assert (result.mine, result.moved) == (frozenset(ONE), frozenset())
    assert not (await lease.write(Slice("other").end(), Slice("w").end(status))).written
    assert await db.stored("w") == (set(), [])
    assert (await lease.write(Slice("w").end("cancelled"), Slice("other").end())).written
    assert [(await db.workflow(one))[0] for one in ("w", "other")] == ["cancelled", "succeeded"]


@forms
@otherwise
async def test_a_cancel_in_the_same_instant_as_an_end_comes_first(db: Database, status: str) -> None:
    """It commits after the statement has taken its snapshot, and before that has reached the row."""
    lease = await (await db.lease()).start("w")
    held = await db.connect(autocommit=False)
    await cancel(held, "w")
    ending = asyncio.create_task(lease.write(Slice("w").end(status)))
    await db.waiting(lease.connection)
    await held.commit()
    try:
        result = await ending
    except psycopg.errors.DivisionByZero:  # all rolled back: sent again, it sees the cancel
        result = await lease.write(Slice("w").end(status))
    assert (result.written, set(result.cancelled)) == (False, ONE)
    assert (await db.workflow("w"))[0] == "running"


async def test_nothing_is_written_of_a_batch_whose_end_a_cancel_overtakes(db: Database) -> None:
    """Not even of other runs: it is whole or not at all."""
    lease = await (await db.lease()).start("w", "other")
    held = await db.connect(autocommit=False)
    await held.execute("SELECT FROM dbosflow.worker FOR UPDATE")  # a death that is called off: it has its snapshot
    rows = batch(Slice("w").record("a").values(0, 2).closed(2).end(), Slice("other").record("a"), starts=("new",))
    writing = asyncio.create_task(lease.send(rows))
    await db.waiting(lease.connection)
    assert await cancel_in(db, "w") == {"w": "running"}
    await held.rollback()
    with pytest.raises(psycopg.errors.DivisionByZero):
        await writing
    assert await db.stored("w") == await db.stored("other") == (set(), [])
    assert await db.workflow("new") == ()
    result = await lease.send(rows)
    assert (result.written, set(result.cancelled)) == (False, ONE)


async def test_a_cancel_that_comes_after_an_end_under_way_finds_it_ended(db: Database) -> None:
    """It waits for the row, and asks for nothing."""
    lease = await (await db.lease()).start("w")
    await lease.connection.execute("BEGIN")
    assert (await lease.write(Slice("w").end())).written
    admin = await db.connect()
    cancelling = asyncio.create_task(cancel(admin, "w"))
    await db.waiting(admin)
    await lease.connection.execute("COMMIT")
    assert await cancelling == []
    assert await asked(db) == set()
    assert (await db.workflow("w"))[0] == "succeeded"


@forms
async def test_the_answer_of_each_batch_tells_of_cancels(db: Database) -> None:
    """Whatever it writes; and a run that knows costs no second statement."""
    lease = await (await db.lease()).start("w", "other")
    await cancel_in(db, "w")
    result = await lease.write(Slice("w").record("a"))
    assert (result.written, set(result.cancelled)) == (True, ONE)
    result = await lease.write(Slice("w").values(0))
    assert (result.written, set(result.cancelled)) == (True, ONE)
    result = await lease.write(Slice("w").record("b"), Slice("other").record("b"))
    assert (result.written, set(result.cancelled)) == (True, ONE)
    assert not (await lease.write(Slice("other").record("c"))).cancelled


async def test_a_cancel_is_one_of_all_that_stands_below(db: Database) -> None:
    """As far as no generation between has ended: what that left running was meant to outlive it."""
    await start_tree(db, top=None, a="top", b="top", aa="a", aaa="aa", bb="b", other=None)
    await db.rows("UPDATE dbosflow.workflow SET status = 'succeeded' WHERE id = 'b'")
    assert set(await cancel_in(db, "top")) == await asked(db) == {"top", "a", "aa", "aaa"}


async def test_a_child_that_nobody_has_begun_ends_with_the_request(db: Database) -> None:
    """At any depth; what has begun has an owner who ends it."""
    await start_tree(db, top=None, a="top", aa="a")
    await db.rows("UPDATE dbosflow.workflow SET epoch = 0, status = 'queued' WHERE id = 'aa'")
    assert await cancel_in(db, "top") == {"top": "running", "a": "running", "aa": "cancelled"}


async def test_the_children_may_be_left_as_they_are(db: Database) -> None:
    """Also by the owner, when it ends the parent; unless somebody asks for them, too, before or after."""
    await start_tree(db, p=None, c="p", q=None, d="q")
    assert set(await cancel_in(db, "p", children=False)) == {"p"}
    assert await workflow.cancel_children(db.admin, SCHEMA, "p") == []
    assert set(await cancel_in(db, "p")) == {"p", "c"}
    await cancel_in(db, "q")
    await start_tree(db, later="q")
    await cancel_in(db, "q", children=False)
    assert {row["id"] for row in await workflow.cancel_children(db.admin, SCHEMA, "q")} == {"d", "later"}


async def test_an_owner_that_was_not_asked_cancels_the_children_of_what_it_ends(db: Database) -> None:
    """What was asked for by code of before has no word on them: they are cancelled."""
    await start_tree(db, p=None, c="p")
    assert {row["id"] for row in await workflow.cancel_children(db.admin, SCHEMA, "p")} == {"c"}


async def test_a_cancel_outlives_the_owner(db: Database) -> None:
    """Each later owner learns of it with its claim, and the request is not withdrawn by a second one."""
    lease = await (await db.lease()).start("w")
    await cancel_in(db, "w")
    (at,) = await db.rows("SELECT cancel_requested_at FROM dbosflow.workflow")
    await db.reclaim(lease)
    await db.requeue()
    (claimed,) = await (await db.lease()).claim()
    assert claimed.cancel_request is not None
    assert await cancel_in(db, "w") == {"w": "running"}
    assert await db.rows("SELECT cancel_requested_at FROM dbosflow.workflow") == [at]
