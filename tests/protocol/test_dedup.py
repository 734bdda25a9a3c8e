"""Deduplicated starts beside each other and beside all that changes the workflow that has their key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._runtime.queues.deduplicator import answer_of
from dbosflow._store import dedup, retention, waiter, workflow
from dbosflow._store.start_options import Dedup, StartOptions
from dbosflow._store.workflow import Enqueued
from tests.protocol.schedules import NAME, SCHEMA, Database, Slice, WorkerLease, cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from psycopg import AsyncConnection

    from dbosflow.types import OnDuplicate

PUT_OFF = StartOptions(delay=3600.0)
POLICIES: tuple[OnDuplicate, ...] = ("existing", "replace", "cancel_running")


def row(
    workflow_id: str, policy: OnDuplicate = "existing", *, key: str = "k", options: StartOptions | None = None
) -> Enqueued:
    """A start with a key, whose argument is its id."""
    return Enqueued(workflow_id, NAME, "", 0, f'{{"by": "{workflow_id}"}}', options=options, dedup=Dedup(key, policy))


async def try_once(connection: AsyncConnection[Any], *rows: Enqueued) -> dict[str, str]:
    """One try of starts: the workflow to which each has led, as far as one could tell."""
    found = await dedup.look(connection, SCHEMA, rows)
    answers = {one.workflow_id: answer_of(one, found[one.workflow_id]) for one in rows}
    rest = [one for one in rows if answers[one.workflow_id] is None]
    decided = await dedup.start(connection, SCHEMA, rest, "r") if rest else {}
    known = {start_id: workflow_id for start_id, workflow_id in answers.items() if workflow_id is not None}
    return known | {start_id: one.workflow_id for start_id, one in decided.items()}


async def start(connection: AsyncConnection[Any], one: Enqueued) -> str:
    """Tries until it is done."""
    async with asyncio.timeout(60):
        while not (found := await try_once(connection, one)):  # noqa: ASYNC110 (nothing signals it)
            await asyncio.sleep(0.001)
    return found[one.workflow_id]


async def statuses(db: Database) -> dict[str, str]:
    return dict(await db.rows("SELECT id, status FROM dbosflow.workflow"))


async def holder(db: Database, key: str = "k") -> tuple[str, Any]:
    """Who has the key, and whose argument it has."""
    (found,) = await db.rows(
        """SELECT d.workflow_id, w.input->>'by' FROM dbosflow.dedup d
           LEFT JOIN dbosflow.workflow w ON w.id = d.workflow_id WHERE d.key = %s""",
        key,
    )
    return found[0], found[1]


@pytest.mark.parametrize("policy", POLICIES)
async def test_of_two_that_start_at_a_time_the_second_sees_the_first(db: Database, policy: OnDuplicate) -> None:
    """It waits for the key until the first one is over, and looks then."""
    one, other = await db.connect(autocommit=False), await db.connect()
    assert await try_once(one, row("a", policy)) == {"a": "a"}
    second = asyncio.create_task(start(other, row("b", policy)))
    await db.waiting(other)
    await one.commit()
    assert await second == "a"
    assert await holder(db) == ("a", "a" if policy == "existing" else "b")
    assert await statuses(db) == {"a": "queued"}


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_start_that_is_rolled_back_leaves_the_key_to_the_next(db: Database, policy: OnDuplicate) -> None:
    one, other = await db.connect(autocommit=False), await db.connect()
    assert await try_once(one, row("a", policy)) == {"a": "a"}
    second = asyncio.create_task(start(other, row("b", policy)))
    await db.waiting(other)
    await one.rollback()
    assert await second == "b"
    assert await statuses(db) == {"b": "queued"}


async def test_two_that_name_the_same_keys_in_opposite_order_do_not_deadlock(db: Database) -> None:
    """Each locks the keys in their own order, so the later one waits at the first of them, and holds none."""
    keys = "abcdefgh"
    in_the_way, one, other = await db.connect(autocommit=False), await db.connect(), await db.connect()
    await try_once(in_the_way, row("middle", key="d"))
    rows = [row(f"one-{key}", "replace", key=key) for key in keys]
    forwards = asyncio.create_task(try_once(one, *rows))
    await db.waiting(one)
    rows = [row(f"other-{key}", "replace", key=key) for key in keys[::-1]]
    backwards = asyncio.create_task(try_once(other, *rows))
    await db.waiting(other)
    await in_the_way.rollback()
    assert await forwards == {f"one-{key}": f"one-{key}" for key in keys}
    assert await backwards == {f"other-{key}": f"one-{key}" for key in keys}


# -- beside what changes the workflow that has the key -----------------------------------------------------------------


async def claims(lease: WorkerLease) -> None:
    assert [one.id for one in await lease.claim()] == ["w"]


async def is_cancelled(lease: WorkerLease) -> None:
    assert len(await cancel(lease.connection, "w")) == 1


async def expires(lease: WorkerLease) -> None:
    assert len(await workflow.expire(lease.connection, SCHEMA, limit=10)) == 1


async def comes_due(lease: WorkerLease) -> None:
    assert len(await waiter.wake_due(lease.connection, SCHEMA)) == 1


async def ends(lease: WorkerLease) -> None:
    assert (await lease.write(Slice("w").end())).written


async def suspends(lease: WorkerLease) -> None:
    assert (await lease.write(Slice("w").suspended(delay=60.0))).written


async def is_blocked(lease: WorkerLease) -> None:
    assert (await lease.write(Slice("w").end("blocked"))).written


CHANGES: dict[str, tuple[str, Callable[[WorkerLease], Coroutine[Any, Any, None]]]] = {
    "claimed": ("queued", claims),
    "cancelled": ("queued", is_cancelled),
    "expired": ("overdue", expires),
    "due": ("due", comes_due),
    "ended": ("running", ends),
    "suspended": ("running", suspends),
    "blocked": ("running", is_blocked),
}
"""What happens to the workflow that has the key, and what it is before."""


async def prepared(db: Database, before: str) -> WorkerLease:
    """The workflow ``w`` has the key."""
    lease = await db.lease()
    await start(db.admin, row("w", options=PUT_OFF if before == "due" else None))
    if before == "running":
        await claims(lease)
    if before == "overdue":
        await db.rows("UPDATE dbosflow.workflow SET deadline_at = now() - interval '1 s'")
    if before == "due":
        await db.rows("UPDATE dbosflow.workflow SET wake_at = now() - interval '1 s'")
    return lease


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_start_beside_a_change_of_the_workflow_that_has_the_key(
    db: Database, change: str, policy: OnDuplicate, *, commits: bool
) -> None:
    """While the change is under way the start waits for nothing; after it, the start does what fits what is there."""
    before, happens = CHANGES[change]
    lease, starter = await prepared(db, before), await db.connect()
    await lease.connection.execute("BEGIN")
    await happens(lease)
    early = await try_once(starter, row("n", policy))
    changes_w = policy != "existing" and not (policy == "replace" and before == "running")
    assert early == ({} if changes_w else {"n": "w" if policy == "existing" else "n"})
    await lease.connection.execute("COMMIT" if commits else "ROLLBACK")
    led_to = await start(starter, row("n", policy))
    has_ended = commits and change in {"cancelled", "expired", "ended"}
    has_begun = before == "running" or (commits and change == "claimed")
    if early and not (policy == "existing" and has_ended):
        assert led_to == early["n"]
    elif has_ended or has_begun:
        assert led_to == "n"
        assert (await statuses(db))["n"] == ("waiting" if policy == "cancel_running" and not has_ended else "queued")
    else:
        assert led_to == "w"
        assert (await db.rows("SELECT input->>'by' FROM dbosflow.workflow WHERE id = 'w'")) == [("n",)]
    asked = await db.rows("SELECT cancel_requested_at IS NOT NULL FROM dbosflow.workflow WHERE id = 'w'")
    if policy == "cancel_running" and not has_ended:
        assert asked == [(has_begun,)]
    assert (await holder(db))[0] == led_to


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_beside_a_start_that_is_under_way(db: Database, change: str, policy: OnDuplicate) -> None:
    """It waits for the row, or passes it over; what it does then is to the workflow as the start has left it."""
    before, happens = CHANGES[change]
    lease, starter = await prepared(db, before), await db.connect(autocommit=False)
    led_to = await try_once(starter, row("n", policy))
    skips = {"claimed", "expired", "due"}
    touched = (led_to == {"n": "w"} and policy != "existing") or policy == "cancel_running"
    if touched and change in skips:
        with pytest.raises(AssertionError):
            await happens(lease)
        await starter.commit()
        return
    changing = asyncio.create_task(happens(lease))
    if touched:
        await db.waiting(lease.connection)
    else:
        await changing
    await starter.commit()
    if policy == "cancel_running" and change in {"ended", "blocked"}:  # what it was asked to do came first
        with pytest.raises((AssertionError, psycopg.errors.DivisionByZero)):
            await changing
        return
    await changing
    status = (await statuses(db))["w"]
    expected = {"claimed": "running", "cancelled": "cancelled", "expired": "failed", "due": "queued"} | {
        "ended": "succeeded",
        "suspended": "queued" if policy == "cancel_running" else "waiting",
        "blocked": "blocked",
    }
    assert status == expected[change]


async def test_a_removal_and_a_start_take_keys_in_one_order(db: Database) -> None:
    """Else each could have one that the other waits for."""
    lease, starter, remover = await db.lease(), await db.connect(), await db.connect()
    ids = "dcba"
    for number, workflow_id in enumerate(ids):
        await start(db.admin, row(workflow_id, key=f"k{number}"))
    assert len(await lease.claim()) == len(ids)
    assert (await lease.write(*(Slice(one).end() for one in ids))).written
    in_the_way = await db.connect(autocommit=False)
    await in_the_way.execute("SELECT FROM dbosflow.dedup WHERE key = 'k1' FOR UPDATE")
    removing = asyncio.create_task(retention.delete(remover, SCHEMA, list(ids), children=False))
    await db.waiting(remover)
    starting = asyncio.create_task(try_once(starter, *(row(f"n{n}", key=f"k{n}") for n in range(4))))
    await db.waiting(starter)
    await in_the_way.rollback()
    await removing
    assert len(await starting) == len(ids)
    assert await db.rows("SELECT count(*) FROM dbosflow.dedup") == [(4,)]


# -- what is repeated -------------------------------------------------------------------------------------------------


async def test_a_start_whose_answer_was_lost_is_not_applied_again(db: Database) -> None:
    """Whether it has made a workflow or changed one, and whatever has become of that."""
    lease = await db.lease()
    assert await start(db.admin, row("a", "replace")) == "a"
    assert await start(db.admin, row("a", "replace")) == "a"
    assert await start(db.admin, row("b", "replace")) == "a"
    assert [one.id for one in await lease.claim()] == ["a"]
    assert await start(db.admin, row("b", "replace")) == "a"
    assert (await lease.write(Slice("a").end())).written
    assert await start(db.admin, row("b", "replace")) == "a"
    assert await start(db.admin, row("c", "replace")) == "c"


async def test_an_id_that_another_start_is_just_taking_is_left_to_that(db: Database) -> None:
    """The key that was made for it names nobody: the next one has it."""
    plain, starter = await db.connect(), await db.connect()
    await plain.execute("BEGIN")
    await workflow.enqueue(plain, SCHEMA, [Enqueued("x", NAME, "", 0, "{}")])
    starting = asyncio.create_task(try_once(starter, row("x")))
    await db.waiting(starter)
    await plain.execute("COMMIT")
    assert await starting == {}
    assert await start(starter, row("x")) == "x"
    assert await holder(db) == ("", None)
    assert await start(starter, row("y")) == "y"


async def test_who_waits_for_the_end_of_another_is_queued_by_that_alone(db: Database) -> None:
    """A hint about the other workflow is no end; whoever looks at what it waits for sees whether it has come."""
    lease = await db.lease()
    await start(db.admin, row("a"))
    assert [one.id for one in await lease.claim()] == ["a"]
    assert await start(db.admin, row("b", "cancel_running")) == "b"
    assert await waiter.wake_by_topic(db.admin, SCHEMA, ["wa"]) == ([], False)
    page = await waiter.page(db.admin, SCHEMA, ("", ""))
    assert [one.workflow_id for one in page.waiting] == ["b"]
    assert await waiter.with_news(db.admin, SCHEMA, page.waiting) == set()
    assert await waiter.in_circles(db.admin, SCHEMA, page.waiting) == set()
    assert (await lease.write(Slice("a").end("cancelled"))).written
    assert await waiter.with_news(db.admin, SCHEMA, page.waiting) == {"b"}
    assert await waiter.wake_by_topic(db.admin, SCHEMA, ["wa"]) == ([""], False)
    assert (await statuses(db))["b"] == "queued"
