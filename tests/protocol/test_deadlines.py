"""A deadline passes like a cancel that the database's clock requests: once, never early, and whatever is under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dbosflow._store import workflow
from dbosflow._store.cancel_request import CANCELLED, CancelRequest
from dbosflow.errors import WorkflowTimeoutError
from dbosflow.failures import load_error
from tests.protocol.schedules import NAME, SCHEMA, Database, Slice, cancel

if TYPE_CHECKING:
    import psycopg

EXPIRED = CancelRequest(None, timed_out=True)
forms = pytest.mark.usefixtures("all_forms")


async def pass_deadline(db: Database, *ids: str) -> None:
    """The deadlines of these workflows have passed."""
    await db.rows("UPDATE dbosflow.workflow SET deadline_at = now() - interval '1 s' WHERE id = ANY(%s)", list(ids))


async def expire(db: Database, session: psycopg.AsyncConnection | None = None, limit: int = 10) -> dict[str, str]:
    """What an alarm asks to end."""
    rows = await workflow.expire(session or db.admin, SCHEMA, limit=limit)
    return {row["id"]: row["status"] for row in rows}


async def test_a_deadline_is_not_due_before_its_moment(db: Database) -> None:
    """And the moment of the next one is known."""
    await (await db.lease()).start("w", "other")
    assert await workflow.next_due(db.admin, SCHEMA) is None
    await db.rows("UPDATE dbosflow.workflow SET deadline_at = now() + interval '1 hour' WHERE id = 'w'")
    assert 3500 < (await workflow.next_due(db.admin, SCHEMA) or 0) <= 3600
    assert await expire(db) == {}
    await pass_deadline(db, "w")
    assert (await workflow.next_due(db.admin, SCHEMA) or 0) <= -1
    assert await expire(db) == {"w": "running"}
    assert await workflow.next_due(db.admin, SCHEMA) is None
    assert await expire(db) == {}


@forms
@pytest.mark.parametrize("status", ["succeeded", "failed", "blocked"])
async def test_a_run_ends_no_other_way_once_its_deadline_has_passed(db: Database, status: str) -> None:
    """Not even with an error of its own. The answer says why, and the end for that reason is stored as a failure."""
    lease = await (await db.lease()).start("w")
    await pass_deadline(db, "w")
    await expire(db)
    result = await lease.write(Slice("w").record("a").end(status))
    assert (result.written, dict(result.cancelled)) == (False, {"w": EXPIRED})
    assert (await lease.write(Slice("w").end("timed out"))).written
    assert (await db.workflow("w"))[0] == "failed"


@forms
async def test_an_end_in_the_same_instant_has_one_order_with_the_deadline(db: Database) -> None:
    """An alarm skips a row that an end holds, and finds it ended; an end that waits for the row sees the request."""
    lease = await (await db.lease()).start("w", "v")
    await pass_deadline(db, "w", "v")
    await lease.connection.execute("BEGIN")
    assert (await lease.write(Slice("w").end())).written
    assert await expire(db) == {"v": "running"}
    await lease.connection.execute("COMMIT")
    assert await expire(db) == {}
    assert [(await db.workflow(one))[0] for one in ("w", "v")] == ["succeeded", "running"]
    assert not (await lease.write(Slice("v").end())).written


async def test_two_alarms_ask_once(db: Database) -> None:
    """The second one skips what the first one holds, and waits for nothing."""
    await (await db.lease()).start("w")
    await pass_deadline(db, "w")
    first, second = await db.connect(autocommit=False), await db.connect()
    assert await expire(db, first) == {"w": "running"}
    assert await expire(db, second) == {}
    await first.commit()
    assert await expire(db, second) == {}


async def test_a_claim_after_the_deadline_knows_of_it(db: Database) -> None:
    """In the claim itself, so that nothing of the workflow begins; also if the alarm comes in the middle of it."""
    lease = await db.lease()
    await workflow.enqueue(db.admin, SCHEMA, [workflow.Enqueued(one, NAME, "", 0, "{}") for one in ("v", "w", "x")])
    await pass_deadline(db, "v")
    await db.rows("UPDATE dbosflow.workflow SET deadline_at = now() + interval '1 hour' WHERE id = 'w'")
    await lease.connection.execute("BEGIN")
    claimed = {one.id: one for one in await lease.claim()}
    assert await expire(db) == {}  # it is held
    await lease.connection.execute("COMMIT")
    assert {one: claim.cancel_request for one, claim in claimed.items()} == {"v": EXPIRED, "w": None, "x": None}
    assert 3500 < (claimed["w"].remaining or 0) <= 3600
    assert claimed["x"].remaining is None
    assert await expire(db) == {}


async def test_what_ran_before_gets_an_owner_and_what_never_ran_ends(db: Database) -> None:
    """Released, of a dead worker, parked: its next owner ends it. The error is the one that an owner would write."""
    lease, dead = await db.lease(), await db.lease()
    await lease.start("released", "parked")
    await dead.start("orphan")
    await workflow.enqueue(db.admin, SCHEMA, [workflow.Enqueued("it's new", NAME, "nobody's", 0, "{}", ("in",))])
    await workflow.release(lease.connection, SCHEMA, lease.id, [("released", 1)])
    assert (await lease.write(Slice("parked").end("blocked"))).written
    await db.reclaim(dead)
    await pass_deadline(db, "released", "parked", "orphan", "it's new")
    assert await expire(db) == {"released": "queued", "parked": "queued", "orphan": "running", "it's new": "failed"}
    assert await db.requeue() == {"orphan": "queued"}
    claimed = {one.id: one.cancel_request for one in await (await db.lease()).claim()}
    assert claimed == dict.fromkeys(("released", "parked", "orphan"), EXPIRED)
    ((text, ended, owner),) = await db.rows(
        "SELECT error::text, ended_at IS NOT NULL, worker_id FROM dbosflow.workflow WHERE id = 'it''s new'"
    )
    error = load_error(text).exception
    assert isinstance(error, WorkflowTimeoutError)
    assert (error.workflow_id, ended, owner) == ("it's new", True, None)
    assert (await db.stored("it's new"))[1] == [(0, 1, "error")]


async def test_a_reload_keeps_the_deadline_and_its_request(db: Database) -> None:
    """A new epoch of the same owner."""
    lease = await (await db.lease()).start("w")
    await pass_deadline(db, "w")
    await expire(db)
    await workflow.renew_epoch(lease.connection, SCHEMA, workflow_id="w", worker_id=lease.id, epoch=1)
    assert dict((await lease.write(Slice("w", 2).record("a"))).cancelled) == {"w": EXPIRED}
    assert await workflow.cancel_requests(db.admin, SCHEMA, lease.id) == {"w": EXPIRED}


@pytest.mark.parametrize("first", ["cancel", "deadline"])
async def test_of_a_cancel_and_a_deadline_the_first_one_counts(db: Database, first: str) -> None:
    """Also if they come in the same instant: the row has one order."""
    lease = await (await db.lease()).start("w")
    await pass_deadline(db, "w")
    held, later = await db.connect(autocommit=False), await db.connect()
    if first == "cancel":
        await cancel(held, "w", reason="why")
        assert await expire(db) == {}
        await held.commit()
        assert await expire(db) == {}
        expected = CancelRequest("why")
    else:
        await expire(db, held)
        waiting = asyncio.create_task(cancel(later, "w", reason="why"))
        await db.waiting(later)
        await held.commit()
        await waiting
        expected = EXPIRED
    assert dict((await lease.write(Slice("w").record("a"))).cancelled) == {"w": expected}


async def test_a_cancel_keeps_its_first_reason(db: Database) -> None:
    """Also if the first one gave none."""
    lease = await (await db.lease()).start("w", "v")
    for reason in (None, "late"):
        await cancel(db.admin, "w", reason=reason)
    for reason in ("first", "late"):
        await cancel(db.admin, "v", reason=reason)
    found = await workflow.cancel_requests(db.admin, SCHEMA, lease.id)
    assert found == {"w": CANCELLED, "v": CancelRequest("first")}


async def test_an_alarm_takes_no_more_than_its_limit(db: Database) -> None:
    """The earliest first, and the rest with the next statement."""
    ids = [f"w{number}" for number in range(5)]
    await (await db.lease()).start(*ids)
    await pass_deadline(db, *ids)
    assert len(await expire(db, limit=3)) == 3
    assert len(await expire(db, limit=3)) == 2
