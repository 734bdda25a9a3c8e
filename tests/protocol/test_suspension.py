"""Suspensions against whatever is under way with them: cancels, deaths, appends, the clock, and other wakers.

A hint is lost in all of them, unless the schedule sends it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from dbosflow._store import waiter
from dbosflow._store.notify import stream_topic, workflow_topic
from dbosflow._store.waiter import Target, Waiting
from dbosflow.types import WorkflowStatus
from tests.protocol.schedules import SCHEMA, Database, Slice, cancel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOTHING: list[tuple[Any, ...]] = []


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as db:
        yield db


async def waiters(db: Database) -> list[tuple[Any, ...]]:
    return await db.rows("SELECT workflow_id, topic FROM dbosflow.waiter ORDER BY workflow_id, topic")


async def status(db: Database, workflow_id: str) -> str:
    return str((await db.workflow(workflow_id))[0])


async def test_a_suspension_leaves_the_row_without_an_owner_and_names_what_it_waits_for(db: Database) -> None:
    lease = await (await db.lease()).start("w")
    await lease.write(Slice("w").record("a#0").suspended(Target("other", "out", 3), Target("child"), delay=60))
    assert await db.workflow("w") == ("waiting", None, 1)
    assert await waiters(db) == [("w", stream_topic("other", "out")), ("w", "wchild"), ("w", "wother")]
    ((minute,),) = await db.rows("SELECT round(extract(epoch FROM wake_at - now())) FROM dbosflow.workflow")
    assert 50 < minute <= 60
    assert not await lease.claim()


@pytest.mark.parametrize("targets", [(), (Target("child"),)])
async def test_a_cancel_that_commits_first_is_not_lost(db: Database, targets: tuple[Target, ...]) -> None:
    """The suspension waits for the row, and then sees the request: the workflow is queued, to be ended by its owner."""
    lease = await (await db.lease()).start("w")
    cancelling = await db.connect(autocommit=False)
    await cancel(cancelling, "w")
    suspending = asyncio.ensure_future(lease.write(Slice("w").suspended(*targets, delay=1e6)))
    await db.waiting(lease.connection)
    await cancelling.commit()
    assert (await suspending).written
    assert await db.workflow("w") == ("queued", None, 1)
    assert await waiters(db) == NOTHING
    (claimed,) = await (await db.lease()).claim()
    assert claimed.cancel_request


async def test_a_cancel_that_comes_second_queues_the_workflow(db: Database) -> None:
    lease = await (await db.lease()).start("w")
    suspending = await db.connect(autocommit=False)
    await lease.write(Slice("w").suspended(Target("child"), delay=1e6))
    await suspending.commit()
    (row,) = await cancel(db.admin, "w")
    assert row["status"] == "queued"
    assert await waiters(db) == NOTHING


async def test_a_dead_worker_suspends_nothing(db: Database) -> None:
    lease = await (await db.lease()).start("w")
    assert await db.reclaim(lease) == {lease.id}
    assert not (await lease.write(Slice("w").suspended(delay=1.0))).leased
    assert await db.requeue() == {"w": "queued"}


async def test_a_death_waits_for_a_suspension_under_way_and_takes_nothing(db: Database) -> None:
    lease = await (await db.lease()).start("w", "x")
    held = await db.hold_key("x", "a#0")
    suspending = asyncio.ensure_future(lease.write(Slice("w").suspended(Target("child")), Slice("x").record("a#0")))
    await db.waiting(lease.connection)
    assert await db.reclaim(lease) == set()
    await held.rollback()
    assert (await suspending).written
    assert await db.reclaim(lease) == {lease.id}
    assert await db.requeue() == {"x": "queued"}
    assert await status(db, "w") == "waiting"


async def test_an_end_before_the_suspension_is_found_by_the_second_look(db: Database) -> None:
    """Its waker has found nobody: only a look after the commit can."""
    lease = await (await db.lease()).start("w", "child")
    await lease.write(Slice("child").end())
    assert await waiter.wake_by_topic(db.admin, SCHEMA, [workflow_topic("child")]) == ([], False)
    await lease.write(Slice("w").suspended(Target("child")))
    assert await waiter.with_news(db.admin, SCHEMA, [Waiting("w", Target("child"))]) == {"w"}
    assert await waiter.wake(db.admin, SCHEMA, ["w"]) == [""]
    assert await status(db, "w") == "queued"


async def test_what_commits_after_the_suspension_finds_the_waiter(db: Database) -> None:
    lease = await (await db.lease()).start("w", "child")
    await lease.write(Slice("w").suspended(Target("child", "out", 1), delay=1e6))
    look = [Waiting("w", Target("child", "out", 1))]
    await lease.write(Slice("child").values(0))
    assert await waiter.with_news(db.admin, SCHEMA, look) == set()
    await lease.write(Slice("child").values(1))
    assert await waiter.with_news(db.admin, SCHEMA, look) == {"w"}
    assert await waiter.wake_by_topic(db.admin, SCHEMA, [stream_topic("child", "out")]) == ([""], False)
    assert await waiters(db) == NOTHING
    assert await waiter.wake_by_topic(db.admin, SCHEMA, [stream_topic("child", "out")]) == ([], False)


async def test_the_sweep_finds_who_has_news_and_nobody_else(db: Database) -> None:
    lease = await (await db.lease()).start("w", "x", "child")
    await lease.write(Slice("w").suspended(Target("child", "out")), Slice("x").suspended(Target("child")))
    await lease.write(Slice("child").values(0))
    found, _, following = await waiter.page(db.admin, SCHEMA, ("", ""))
    assert {(one.workflow_id, one.target) for one in found} == {("w", Target("child", "out")), ("x", Target("child"))}
    assert following is None
    assert await waiter.with_news(db.admin, SCHEMA, found) == {"w"}


async def test_a_look_for_news_reads_no_value_and_no_outcome(db: Database) -> None:
    """However large they are, and whatever makes the server refuse them: here that the role may not read them."""
    lease = await (await db.lease()).start("w", "child", "other")
    targets = Target("child", "out"), Target("other")
    await lease.write(Slice("w").suspended(*targets), Slice("child").values(0), Slice("other").end())
    reading = await db.connect()
    role = f"looks_{uuid4().hex}"
    await db.rows(f"CREATE ROLE {role}")
    try:
        await db.rows(f"GRANT USAGE ON SCHEMA dbosflow TO {role}")
        await db.rows(f"GRANT SELECT (id, status) ON dbosflow.workflow TO {role}")
        keys = "workflow_id, key, kind, producer, attempt"
        await db.rows(f'GRANT SELECT ({keys}, "offset", count) ON dbosflow.stream_block TO {role}')
        await db.rows(f"GRANT SELECT (workflow_id, key, kind, error, attempt) ON dbosflow.step TO {role}")
        await reading.execute(f"SET ROLE {role}".encode())
        for target in targets:
            assert await waiter.with_news(reading, SCHEMA, [Waiting("w", target)]) == {"w"}
        assert await waiter.statuses(reading, SCHEMA, ["w"]) == {"w": WorkflowStatus.WAITING}
    finally:
        await db.rows(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_rolled_back_values_are_news_for_a_reader_of_committed_ones(db: Database) -> None:
    """It goes on behind them."""
    lease = await (await db.lease()).start("w", "child")
    part, back = Slice("child").values(0), Slice("child").values(1, kind="rollback")
    part.blocks = [part.blocks[0]._replace(producer="gen#0@1.1", attempt="1.1")]
    back.blocks = [back.blocks[0]._replace(producer="gen#0@1.1", attempt="1.1", values="[[0, 1]]")]
    look = [Waiting("w", Target("child", "out", 0, True))]
    await lease.write(part, Slice("w").suspended(look[0].target))
    assert await waiter.with_news(db.admin, SCHEMA, look) == set()
    await lease.write(back)
    assert await waiter.with_news(db.admin, SCHEMA, look) == {"w"}


async def test_rows_of_a_workflow_that_was_cancelled_in_that_instant_are_swept_away(db: Database) -> None:
    """The cancel has a snapshot from before the suspension, and does not see them."""
    lease = await (await db.lease()).start("w", "x")
    held = await db.hold_key("x", "a#0")
    part = Slice("w").suspended(Target("child"))
    suspending = asyncio.ensure_future(lease.write(part, Slice("x").record("a#0")))
    await db.waiting(lease.connection)
    other = await db.connect()
    cancelling = asyncio.ensure_future(cancel(other, "w"))
    await db.waiting(other)
    await held.rollback()
    await suspending
    await cancelling
    assert await status(db, "w") == "queued"
    page = await waiter.page(db.admin, SCHEMA, ("", ""))
    assert (page.waiting, page.stale) == ([], ["w"])
    await waiter.forget(db.admin, SCHEMA, page.stale)
    assert await waiters(db) == NOTHING


async def test_rows_of_who_waits_are_never_swept_away(db: Database) -> None:
    lease = await (await db.lease()).start("w")
    await lease.write(Slice("w").suspended(Target("child")))
    await waiter.forget(db.admin, SCHEMA, ["w"])
    assert await waiters(db) == [("w", "wchild")]


async def test_uncommitted_values_are_no_news_for_a_reader_of_committed_ones(db: Database) -> None:
    lease = await (await db.lease()).start("w", "child")
    part = Slice("child").values(0)
    part.blocks = [part.blocks[0]._replace(producer="gen#0@1.1", attempt="1.1")]
    await lease.write(part, Slice("w").suspended(Target("child", "out", committed=True)))
    look = [Waiting("w", Target("child", "out", 0, True))]
    assert await waiter.with_news(db.admin, SCHEMA, look) == set()
    await lease.write(Slice("child").record("gen#0"))
    assert await waiter.with_news(db.admin, SCHEMA, look) == {"w"}


async def test_the_clock_wakes_what_is_due_of_any_name_and_knows_the_next_time(db: Database) -> None:
    lease = await (await db.lease()).start("due", "later", "never")
    await lease.write(
        Slice("due").suspended(delay=0.0),
        Slice("later").suspended(delay=60.0),
        Slice("never").suspended(Target("child")),
    )
    await db.rows("UPDATE dbosflow.workflow SET name = 'unknown'")
    assert await waiter.wake_due(db.admin, SCHEMA) == [""]
    assert [await status(db, one) for one in ("due", "later", "never")] == ["queued", "waiting", "waiting"]
    seconds = await waiter.next_due(db.admin, SCHEMA)
    assert seconds is not None
    assert 50 < seconds <= 60


async def test_the_clock_skips_what_a_canceller_holds_and_nothing_is_lost(db: Database) -> None:
    lease = await (await db.lease()).start("w")
    await lease.write(Slice("w").suspended(delay=0.0))
    cancelling = await db.connect(autocommit=False)
    await cancel(cancelling, "w")
    assert await waiter.wake_due(db.admin, SCHEMA) == []
    await cancelling.commit()
    assert await status(db, "w") == "queued"


async def test_wakers_with_different_topics_never_wait_for_one_another(db: Database) -> None:
    """Each takes what it can get, and is told of the rest; between them they wake all."""
    names = [f"w{number}" for number in range(20)]
    lease = await (await db.lease()).start(*names)
    await lease.write(*(Slice(name).suspended(Target("a"), Target("b")) for name in names))
    first, second = await db.connect(), await db.connect()
    await first.execute("BEGIN")
    some, _ = await waiter.wake_by_topic(first, SCHEMA, [workflow_topic("a")])
    assert await waiter.wake_by_topic(second, SCHEMA, [workflow_topic("b")]) == ([], True)
    await first.execute("COMMIT")
    assert len(some) == len(names)
    assert await waiters(db) == NOTHING


async def test_a_waker_with_an_old_snapshot_wakes_a_workflow_that_waits_again(db: Database) -> None:
    """It was woken, ran and waits for something else meanwhile: one replay too many, and no wake-up too few."""
    lease = await (await db.lease()).start("w")
    await lease.write(Slice("w").suspended(Target("a")))
    assert await waiter.wake(db.admin, SCHEMA, ["w"]) == [""]
    (claimed,) = await lease.claim()
    await lease.write(Slice("w", claimed.epoch).suspended(Target("a"), Target("b")))
    assert await waiter.wake_by_topic(db.admin, SCHEMA, [workflow_topic("b")]) == ([""], False)
    assert await db.workflow("w") == ("queued", None, 2)


async def test_a_late_copy_of_a_suspension_changes_nothing(db: Database) -> None:
    lease = await (await db.lease()).start("w")
    rows = Slice("w").suspended(Target("a"))
    assert (await lease.write(rows)).written
    assert not (await lease.write(rows)).written
    assert await waiter.wake(db.admin, SCHEMA, ["w"]) == [""]
    (claimed,) = await lease.claim()
    assert not (await lease.write(rows)).written
    assert await db.workflow("w") == ("running", lease.id, claimed.epoch)


async def news_of(db: Database) -> set[str]:
    """Who has news by what is in the tables, as the sweep and the second look find it."""
    found = (await waiter.page(db.admin, SCHEMA, ("", ""))).waiting
    return await waiter.with_news(db.admin, SCHEMA, found)


@pytest.mark.parametrize("ahead_is_live", [True, False])
async def test_of_two_readers_of_one_stream_the_one_ahead_may_have_news_alone(
    db: Database, *, ahead_is_live: bool
) -> None:
    """The one behind waits for what is uncommitted; the hint is lost. Either has a row, and its hint wakes both."""
    lease = await (await db.lease()).start("w", "child")
    held = Slice("child").values(0)
    held.blocks = [held.blocks[0]._replace(producer="gen#0@1.1", attempt="1.1")]
    behind, ahead = Target("child", "out", 0, committed=True), Target("child", "out", 1, committed=not ahead_is_live)
    await lease.write(held, Slice("w").suspended(ahead, behind))
    assert await news_of(db) == set()
    value = Slice("child").values(1)
    if ahead_is_live:
        value.blocks = [value.blocks[0]._replace(producer="gen#0@1.1", attempt="1.1", producer_seq=1)]
    await lease.write(value)
    assert await news_of(db) == {"w"}
    assert await waiter.wake_by_topic(db.admin, SCHEMA, [stream_topic("child", "out")]) == ([""], False)
    assert await waiters(db) == NOTHING


def test_each_reader_has_a_row_and_the_end_of_a_workflow_one() -> None:
    first, second, end = Target("a", "x", 1), Target("a", "x", 7), Target("a")
    found = waiter.by_topic("w", [first, second, first, end])
    news = stream_topic("a", "x")
    assert found == {workflow_topic("a"): end, news: first, f"2{news}": second}
    assert waiter.by_topic("a", [first]) == {news: first}
