"""Schedules: each tick starts its workflow once, by the database's clock, whoever is there to start it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Schedule, Tick, WorkflowStatus, workflow
from dbosflow.errors import ConfigurationError, ScheduleNotFoundError, SerializationError
from tests.behaviour.tables import rows
from tests.support import eventually, eventually_async

if TYPE_CHECKING:
    from dbosflow.types import ScheduleInfo

PATIENCE = 60.0
IDS = "SELECT id FROM dbosflow.workflow ORDER BY id"


@workflow
async def told_the_time(tick: Tick, greeting: str = "hello") -> tuple[str, Tick]:
    return greeting, tick


@workflow
async def told_nothing(number: int) -> int:
    return number


async def test_a_tick_starts_the_workflow_at_its_time(database_url: str) -> None:
    """Each second, for a worker of the queue: nobody polls for the moment, and none comes early."""
    async with Engine(database_url) as engine:
        worker = asyncio.create_task(engine.run_worker_async("times"))
        every_second = Schedule("second", told_the_time, every=1, args={"greeting": "good day"}, queue="times")
        info = await engine.schedules.apply_async(every_second)
        assert info.next_at is not None
        first, second = (f"second@{info.next_at + n * timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}" for n in range(2))
        await eventually_async(lambda: len(rows(database_url, IDS)) > 1)
        handles = [engine.handle(one, told_the_time) for one in (first, second)]
        results = [await handle.result_async(timeout=PATIENCE) for handle in handles]
        worker.cancel()
    assert results[0] == ("good day", Tick("second", info.next_at))
    assert results[1][1].previous_at == info.next_at
    early = "SELECT count(*) FROM dbosflow.workflow WHERE created_at < split_part(id, '@', 2)::timestamptz"
    assert rows(database_url, early) == [(0,)]


def test_the_record_of_a_schedule(client: Engine) -> None:
    """A client manages schedules; whoever executes workflows starts the ticks."""
    args = {"number": 3}
    spec = told_nothing.options(priority=2, timeout=60)
    info = client.schedules.apply(
        Schedule("s", spec, cron="0 3 * * *", timezone="Europe/Oslo", args=args, overlap="skip")
    )
    assert client.schedules.list() == [info] == [client.schedules.get("s")]
    assert (info.name, info.workflow, info.queue, info.args) == ("s", "told_nothing", "default", args)
    assert (info.cron, info.every, info.timezone, info.overlap) == ("0 3 * * *", None, "Europe/Oslo", "skip")
    assert (info.catch_up, info.jitter, info.declared_in) == (3600, 0, None)
    assert (info.paused, info.missed, info.running, info.last_at) == (False, 0, (), None)
    assert info.next_at is not None
    assert info.next_at > info.created_at


def test_a_triggered_workflow_is_told_so(engine: Engine, database_url: str) -> None:
    client_handle = _triggered(engine)
    assert client_handle.status() is WorkflowStatus.QUEUED
    assert client_handle.workflow_id.startswith("s@")
    found = """SELECT w.input -> 'tick' ->> 'by', a.value
               FROM dbosflow.workflow w JOIN dbosflow.attribute a ON a.workflow_id = w.id"""
    assert rows(database_url, found) == [("trigger", '"s"')]
    assert engine.schedules.get("s").running == (client_handle.workflow_id,)


def _triggered(engine: Engine) -> Any:
    engine.schedules.apply(Schedule("s", told_the_time, every=3600))
    return engine.schedules.trigger("s")


def test_a_backfill_starts_what_has_passed(engine: Engine, database_url: str) -> None:
    engine.schedules.apply(Schedule("s", told_the_time, cron="0 * * * *"))
    begin = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
    assert engine.schedules.backfill("s", begin, begin + timedelta(hours=3)) == 3
    assert engine.schedules.backfill("s", begin, begin + timedelta(hours=4)) == 1
    with pytest.raises(ConfigurationError, match="more than 5 ticks"):
        engine.schedules.backfill("s", begin, limit=5)
    with pytest.raises(ConfigurationError, match="in the year 1 of UTC or later"):
        engine.schedules.backfill("s", datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))
    assert [one for (one,) in rows(database_url, IDS)] == [f"s@2026-03-01T{hour}:00:00Z" for hour in (11, 12, 13, 14)]


def test_a_client_without_the_code_gives_the_name(client: Engine) -> None:
    info: ScheduleInfo = client.schedules.apply(Schedule("s", "of_somebody_else", every=60, args={"a": [1, "x", None]}))
    assert (info.workflow, info.args) == ("of_somebody_else", {"a": [1, "x", None]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either cron= or every="),
        ({"cron": "0 0 * * *", "every": 5}, "either cron= or every="),
        ({"cron": "0 0 30 2 *"}, "Bad day-of-month"),
        ({"every": 60, "overlap": "never"}, "must be one of 'allow', 'skip'"),
        ({"every": 60, "catch_up": -1}, "catch_up"),
        ({"every": 60, "jitter": "long"}, "jitter"),
        ({"every": 60, "queue": "dbosflow/x"}, "must not begin with"),
        ({"every": 60, "args": [1]}, "must be a dictionary"),
        ({"every": 60, "evry": 60}, "no option 'evry'"),
    ],
)
def test_wrong_options_of_schedules_are_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Schedule("s", told_the_time, **options)


@pytest.mark.parametrize("name", ["", "x" * 201, "dbosflow/s", "a\0b", 5])
def test_wrong_names_of_schedules_are_refused_at_once(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="schedule's name"):
        Schedule(name, told_the_time, every=60)


def test_an_option_of_one_start_is_none_of_a_schedule() -> None:
    for spec in (
        told_the_time.options(workflow_id="w"),
        told_the_time.options(delay=5),
        told_the_time.options(dedup_key="k"),
    ):
        with pytest.raises(ConfigurationError, match="an option of one start"):
            Schedule("s", spec, every=60)


@pytest.mark.parametrize("args", [{}, {"number": 1, "other": 2}])
def test_arguments_that_the_workflow_does_not_take_are_refused(client: Engine, args: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="does not take the arguments"):
        client.schedules.apply(Schedule("s", told_nothing, every=60, args=args))


def test_arguments_that_json_cannot_carry_are_refused(client: Engine) -> None:
    with pytest.raises(SerializationError, match="cannot be started by a schedule"):
        client.schedules.apply(Schedule("s", told_nothing, every=60, args={"number": object()}))


def test_the_tick_is_no_argument_of_a_schedule(client: Engine) -> None:
    with pytest.raises(ConfigurationError, match="leave it out of args"):
        client.schedules.apply(Schedule("s", told_the_time, every=60, args={"tick": None}))


def test_a_name_without_a_schedule(client: Engine) -> None:
    calls = (client.schedules.get, client.schedules.pause, client.schedules.resume, client.schedules.trigger)
    for call in (*calls, client.schedules.delete):
        with pytest.raises(ScheduleNotFoundError, match="no schedule 'nobody'"):
            call("nobody")
    with pytest.raises(ScheduleNotFoundError):
        client.schedules.backfill("nobody", datetime(2026, 1, 1, tzinfo=UTC))


def test_a_worker_that_looks_rarely_hears_of_a_new_schedule(database_url: str) -> None:
    """By the hint of a client in another process: no poll would find it in time."""
    with Engine(database_url, safety_poll=600) as engine, Engine(database_url, executes=False) as client:
        client.schedules.apply(Schedule("s", told_the_time, every=1))
        eventually(lambda: engine.list_workflows(name="told_the_time"))
