"""The alarm: looks at the next moment that it knows, and no more often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from dbosflow import Engine, workflow
from dbosflow._runtime.queues.alarm import Alarm
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._store import workflow as store
from dbosflow._store.notify import ALARM_TOPIC, CANCEL_TOPIC, queue_topic, workflow_topic
from dbosflow.errors import WorkflowTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEVER = 3600.0


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    """A pool, as an engine has it."""
    async with AsyncConnectionPool(database_url, min_size=1, open=False, kwargs={"autocommit": True}) as opened:
        yield opened


def insert(url: str, workflow_id: str, seconds: float) -> None:
    """A workflow in a queue, with its deadline in so many seconds."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, queue, input, deadline_at)
               VALUES (%s, 'flow', 'queued', 'q', '{}', now() + %s * interval '1 second')""",
            (workflow_id, seconds),
        )


async def test_a_look_asks_what_is_due_to_end_and_waits_for_the_next(
    pool: AsyncConnectionPool[Any], database_url: str
) -> None:
    """Whoever waits for it is told."""
    told: list[str] = []
    alarm = Alarm(pool, "dbosflow", Wakeups(), told.extend)
    assert await alarm.work_once() is False
    assert (alarm._timer._handle, told) == (None, [])
    insert(database_url, "due", -1)
    insert(database_url, "next", 1000)
    insert(database_url, "later", 2000)
    assert await alarm.work_once() is True
    assert told == [CANCEL_TOPIC, workflow_topic("due"), queue_topic("q")]
    assert await alarm.work_once() is False
    assert alarm._timer._handle is not None
    assert 900 < alarm._timer._handle.when() - asyncio.get_running_loop().time() <= 1000
    await alarm.close()
    assert alarm._timer._handle is None


async def test_an_earlier_moment_replaces_the_timer_and_a_later_one_does_not(pool: AsyncConnectionPool[Any]) -> None:
    """One timer is enough: the look that it begins finds the next moment."""
    alarm = Alarm(pool, "dbosflow", Wakeups(), lambda _: None)
    for seconds, expected in ((100, 100), (200, 100), (50, 50)):
        alarm.expect(seconds)
        assert alarm._timer._handle is not None
        assert abs(alarm._timer._handle.when() - asyncio.get_running_loop().time() - expected) < 10
    await alarm.close()


async def test_a_hint_begins_a_look(pool: AsyncConnectionPool[Any], database_url: str) -> None:
    """Another process has a workflow whose deadline comes soon."""
    wakeups, told = Wakeups(), asyncio.Event()
    alarm = Alarm(pool, "dbosflow", wakeups, lambda _: told.set())
    alarm.open()
    insert(database_url, "due", -1)
    wakeups.wake([ALARM_TOPIC])
    async with asyncio.timeout(60):
        await told.wait()
    await alarm.close()


async def test_a_value_for_an_input_in_the_same_instant_has_the_look_repeated(
    pool: AsyncConnectionPool[Any], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """As with a cancel: the statement ended the input at an offset that is taken by now."""
    insert(database_url, "due", -1)
    alarm, expire = Alarm(pool, "dbosflow", Wakeups(), lambda _: None), store.expire

    async def overtaken(*_args: Any, **_options: Any) -> Any:
        monkeypatch.setattr(store, "expire", expire)
        raise psycopg.errors.UniqueViolation

    monkeypatch.setattr(store, "expire", overtaken)
    assert [await alarm.work_once() for _ in range(3)] == [True, True, False]
    await alarm.close()


@workflow
async def alarm_waits() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("starter", ["the same engine", "a client"])
async def test_nobody_polls_for_a_deadline(database_url: str, starter: str) -> None:
    """With a safety poll that never comes, the timer of the engine or the hint of the client ends it in time."""
    async with (
        Engine(database_url, safety_poll=NEVER) as engine,
        Engine(database_url, safety_poll=NEVER, executes=False) as client,
    ):
        starting, queue = (engine, None) if starter == "the same engine" else (client, "nobody serves it")
        handle = await starting.start_async(alarm_waits.options(timeout=0.2, queue=queue))
        with pytest.raises(WorkflowTimeoutError):
            await handle.result_async(30)
