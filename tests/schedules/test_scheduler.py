"""What a scheduler does at which time: ticks, overlaps, catching up, clocks that jump. No test waits for a clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from dbosflow._store import queries, schedule
from dbosflow._store.notify import ALARM_TOPIC, SCHEDULES_TOPIC, queue_topic, workflow_topic
from tests.schedules.world import MINUTE, START, ids, minutes

if TYPE_CHECKING:
    from tests.schedules.world import World


async def test_a_tick_starts_one_workflow_at_its_time_and_none_before(world: World) -> None:
    assert (await world.apply()).next_at == START + MINUTE
    await world.at(START + MINUTE - timedelta(seconds=1))
    assert await world.started() == []
    await world.at(START + MINUTE)
    assert await world.started() == minutes(1)
    assert {queue_topic("default"), workflow_topic(*ids(minutes(1)))} <= set(world.announced)
    await world.at(START + MINUTE)
    assert await world.started() == minutes(1)
    assert (await world.info()).next_at == START + 2 * MINUTE


async def test_without_schedules_a_look_is_one_query_and_sets_no_timer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = queries.fetch_all

    async def counting(*args: object, **values: object) -> object:
        asked.append(str(args[3]))
        return await fetch(*args, **values)  # type: ignore[arg-type]  # what it got

    monkeypatch.setattr(schedule, "fetch_all", counting)
    await world.at(START)
    assert asked == ["next_due"]
    assert world.schedulers[0]._timer._handle is None


async def test_schedulers_that_look_at_the_same_time_start_each_tick_once(world: World) -> None:
    for number in range(10):
        await world.apply(f"s{number}", overlap="allow")
    schedulers = [world.scheduler() for _ in range(4)]
    for number in range(1, 6):
        await asyncio.gather(*(world.at(START + number * MINUTE, scheduler=one) for one in schedulers))
        await world.at(START + number * MINUTE)  # what one has left to another that was late itself
    for number in range(10):
        assert await world.started(f"s{number}") == minutes(*range(1, 6))
    for one in schedulers:
        await one.close()


async def test_two_statements_for_one_tick_start_it_once(world: World) -> None:
    """Both have read the same; the second finds that the version is another one by now."""
    await world.apply()
    now = START + MINUTE
    async with world.pool.connection() as one, world.pool.connection() as other:
        seen = [(await schedule.look(it, "dbosflow", now, 10))[0] for it in (one, other)]
        candidates = schedule.Candidates(["s@x"], [now], [now], ["{}"])
        first = await schedule.tick(one, "dbosflow", seen[0], candidates, next_at=now + MINUTE, left_out=0)
        second = await schedule.tick(other, "dbosflow", seen[1], candidates, next_at=now + MINUTE, left_out=0)
    assert first == schedule.Started("default", ["s@x"])
    assert second is None


async def test_a_tick_that_somebody_else_is_about_to_start_is_not_waited_for(world: World) -> None:
    """A transaction that has the row, and that may take long: the look ends, and comes again."""
    await world.apply()
    async with world.pool.connection() as holder, holder.transaction():
        assert await schedule.lock(holder, "dbosflow", "s") is not None
        await world.at(START + MINUTE)
        assert await world.started() == []
    await world.at(START + MINUTE)
    assert await world.started() == minutes(1)


@pytest.mark.parametrize(
    ("overlap", "at_once", "after_the_end"),
    [
        ("allow", minutes(1, 2, 3), minutes(1, 2, 3)),
        ("skip", minutes(1), minutes(1)),
        ("buffer_one", minutes(1), minutes(1, 2)),
        ("cancel_running", minutes(1), minutes(1, 3)),
    ],
)
async def test_what_a_tick_does_while_a_workflow_of_an_earlier_one_runs(
    world: World, overlap: str, at_once: list[str], after_the_end: list[str]
) -> None:
    """One tick after the other; then the first workflow ends."""
    await world.apply(overlap=overlap)
    for number in (1, 2, 3):
        await world.at(START + number * MINUTE)
        if number == 1:  # a worker has begun it: a cancellation is a request from now on
            await world.rows("UPDATE dbosflow.workflow SET status = 'running', epoch = 1")
    assert await world.started() == at_once
    asked = await world.rows("SELECT cancel_reason FROM dbosflow.workflow WHERE cancel_requested_at IS NOT NULL")
    expected = ["the next tick of schedule 's' has come"] if overlap == "cancel_running" else []
    assert [row["cancel_reason"] for row in asked] == expected
    await world.end(*ids(minutes(1)))
    await world.at(START + 3 * MINUTE + timedelta(seconds=1))
    assert await world.started() == after_the_end
    assert (await world.info()).buffered_at is None


@pytest.mark.parametrize(
    ("overlap", "at_once", "after_the_end"),
    [
        ("allow", minutes(1, 2, 3, 4, 5), minutes(1, 2, 3, 4, 5)),
        ("skip", minutes(1), minutes(1)),
        ("buffer_one", minutes(1), minutes(1, 2)),
        ("cancel_running", minutes(5), minutes(5)),
    ],
)
async def test_what_is_caught_up_on(world: World, overlap: str, at_once: list[str], after_the_end: list[str]) -> None:
    """Nobody was there for five ticks; they are due at once, the oldest first."""
    await world.apply(overlap=overlap)
    await world.at(START + 5 * MINUTE)
    assert await world.started() == at_once
    for one in at_once:
        await world.end(*ids([one]))
    await world.at(START + 5 * MINUTE + timedelta(seconds=1))
    assert await world.started() == after_the_end
    assert (await world.info()).next_at == START + 6 * MINUTE


async def test_a_skipped_tick_is_counted_until_one_starts_a_workflow(world: World) -> None:
    await world.apply(overlap="skip")
    for number in (1, 2, 3):
        await world.at(START + number * MINUTE)
    info = await world.info()
    assert (info.last_at, info.missed, info.running) == (START + MINUTE, 2, tuple(ids(minutes(1))))
    await world.end(*ids(minutes(1)))
    await world.at(START + 4 * MINUTE)
    info = await world.info()
    assert (info.last_at, info.missed) == (START + 4 * MINUTE, 0)


async def test_ticks_older_than_catch_up_are_missed(world: World) -> None:
    await world.apply(catch_up=2 * MINUTE)
    await world.at(START + 10 * MINUTE)
    assert await world.started() == minutes(8, 9, 10)
    await world.apply("none", catch_up=0)
    await world.at(START + 12 * MINUTE + timedelta(seconds=1))
    assert await world.started("none") == []
    assert (await world.info("none")).missed == 2


async def test_ages_without_anybody_are_caught_up_on_in_bounded_statements(world: World) -> None:
    """Ten years of seconds: what is too old is not even counted to its end, and the rest comes a hundred at a time."""
    await world.apply(every=1, catch_up=250)
    await world.at(START + timedelta(days=3650))
    assert len(await world.started()) == 251
    assert (await world.info()).next_at == START + timedelta(days=3650, seconds=1)
    times = await world.rows(
        "SELECT count(*) AS number, count(DISTINCT created_at) AS statements FROM dbosflow.workflow"
    )
    assert times == [{"number": 251, "statements": 3}]


async def test_the_end_of_the_calendar_is_the_end_of_a_schedule(world: World) -> None:
    world.now = START.replace(year=9999, month=12, day=31, hour=23, minute=58)
    await world.apply()
    await world.at(world.now + MINUTE)
    info = await world.info()
    assert (len(await world.started()), info.next_at) == (1, None)
    await world.at(world.now + timedelta(seconds=59))
    assert len(await world.started()) == 1


# -- clocks that jump --------------------------------------------------------------------------------------------------


async def test_a_clock_that_is_put_back_doubles_no_tick(world: World) -> None:
    await world.apply()
    for number in (1, 2, 3, 1, 2, 3, 4):
        await world.at(START + number * MINUTE)
    assert await world.started() == minutes(1, 2, 3, 4)


@pytest.mark.parametrize("overlap", ["allow", "skip", "buffer_one", "cancel_running"])
async def test_a_clock_that_was_ahead_loses_no_tick(world: World, overlap: str) -> None:
    """A year ahead, for a moment: what it has started then is there, and the ticks of the time between come."""
    await world.apply(overlap=overlap, catch_up=30)
    await world.at(START + MINUTE)
    await world.end(*ids(minutes(1)))
    await world.at(START + timedelta(days=365))
    await world.rows("UPDATE dbosflow.workflow SET status = 'succeeded' WHERE status = 'queued'")
    for number in (2, 3, 4):
        await world.at(START + number * MINUTE)
        await world.end(*ids(minutes(number)))
    assert await world.started() == [*minutes(1, 2, 3, 4), "2027-06-01T12:00:00"]


async def test_a_clock_that_is_put_back_cancels_nothing_for_its_own_tick(world: World) -> None:
    """The tick comes a second time while its own workflow runs."""
    await world.apply(overlap="cancel_running")
    await world.at(START + MINUTE)
    await world.at(START)
    await world.at(START + MINUTE)
    info = await world.info()
    assert (info.buffered_at, await world.started()) == (None, minutes(1))
    assert await world.rows("SELECT FROM dbosflow.workflow WHERE cancel_requested_at IS NOT NULL") == []


# -- requests ----------------------------------------------------------------------------------------------------------


async def test_a_paused_schedule_starts_nothing_and_goes_on_from_now_on(world: World) -> None:
    await world.apply()
    await world.requests.pause("s")
    await world.at(START + 3 * MINUTE)
    assert await world.started() == []
    info = await world.requests.resume("s")
    assert (info.paused, info.next_at) == (False, START + 4 * MINUTE)
    await world.at(START + 4 * MINUTE)
    assert await world.started() == minutes(4)


async def test_a_pause_between_the_look_and_the_statement_counts(world: World) -> None:
    await world.apply()
    now = START + MINUTE
    async with world.pool.connection() as connection:
        (seen,) = await schedule.look(connection, "dbosflow", now, 10)
        await world.requests.pause("s")
        candidates = schedule.Candidates(["s@x"], [now], [now], ["{}"])
        assert await schedule.tick(connection, "dbosflow", seen, candidates, next_at=now + MINUTE, left_out=0) is None
    assert await world.started() == []


async def test_a_schedule_that_was_deleted_and_made_anew_is_another_one(world: World) -> None:
    """A scheduler that has read the old one starts nothing for it."""
    await world.apply()
    now = START + MINUTE
    async with world.pool.connection() as connection:
        (seen,) = await schedule.look(connection, "dbosflow", now, 10)
        await world.requests.delete("s")
        await world.apply()
        candidates = schedule.Candidates(["s@x"], [now], [now], ["{}"])
        assert await schedule.tick(connection, "dbosflow", seen, candidates, next_at=now + MINUTE, left_out=0) is None


async def test_what_was_triggered_counts_as_running(world: World) -> None:
    """Also while the schedule is paused; the same request again starts nothing more."""
    await world.apply(overlap="skip")
    await world.requests.pause("s")
    await world.requests.trigger("s", "s@mine")
    await world.requests.trigger("s", "s@mine")
    await world.requests.resume("s")
    await world.at(START + MINUTE)
    assert await world.started() == ["mine"]
    await world.end("s@mine")
    await world.at(START + 2 * MINUTE)
    assert await world.started() == [*minutes(2), "mine"]


async def test_a_backfill_starts_what_is_not_there_and_does_so_once(world: World) -> None:
    await world.apply(overlap="skip")
    await world.at(START + MINUTE)
    world.set_clock(START + 5 * MINUTE)
    assert await world.requests.backfill("s", START, None, 100) == 4
    assert await world.requests.backfill("s", START, None, 100) == 0
    assert await world.started() == minutes(0, 1, 2, 3, 4)
    assert (await world.info()).running == tuple(ids(minutes(1)))
    assert (await world.info()).next_at == START + 2 * MINUTE


async def test_a_schedule_that_is_replaced_keeps_its_next_tick_if_its_times_stay(world: World) -> None:
    """A tick that is due while new code comes is not lost."""
    await world.apply()
    world.now = START + MINUTE
    assert (await world.apply(args={"number": 1})).next_at == START + MINUTE
    assert (await world.apply(every=120)).next_at == START + 2 * MINUTE
    await world.requests.pause("s")
    assert (await world.apply(every=300)).paused is True


async def test_jitter_delays_the_workflow_by_the_same_time_each_time(world: World) -> None:
    await world.apply(jitter=30)
    await world.apply("other", jitter=30)
    await world.at(START + MINUTE)
    found = await world.rows("SELECT status, wake_at FROM dbosflow.workflow ORDER BY id")
    assert {row["status"] for row in found} == {"scheduled"}
    late = [row["wake_at"] - START - MINUTE for row in found]
    assert all(timedelta() < one < timedelta(seconds=30) for one in late)
    assert late[0] != late[1]
    assert ALARM_TOPIC in world.announced


async def test_a_schedule_that_cannot_be_served_holds_up_no_other(world: World) -> None:
    """Its time zone is not known to this process."""
    await world.apply("bad", cron="* * * * *", timezone="Europe/Oslo")
    await world.apply()
    await world.rows("UPDATE dbosflow.schedule SET timezone = 'Mars/Olympus' WHERE name = 'bad'")
    await world.at(START + MINUTE)
    assert (await world.started(), await world.started("bad")) == (minutes(1), [])


async def test_an_end_that_a_buffered_tick_waits_for_begins_a_look(world: World) -> None:
    """By the hint of whoever ends it."""
    scheduler = world.schedulers[0]
    await world.apply(overlap="buffer_one")
    await world.at(START + MINUTE)
    await world.at(START + 2 * MINUTE)
    scheduler._woken.clear()
    world.wakeups.wake([workflow_topic(*ids(minutes(1)))])
    assert scheduler._woken.is_set()
    await world.end(*ids(minutes(1)))
    await world.at(START + 2 * MINUTE)
    assert await world.started() == minutes(1, 2)
    assert scheduler._awaited == {}


async def test_changes_are_announced(world: World) -> None:
    await world.apply()
    assert world.announced == [SCHEDULES_TOPIC]
