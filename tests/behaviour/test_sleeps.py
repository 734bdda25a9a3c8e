"""Durable sleeps: the wake time is on record, so a restart neither begins a sleep anew nor ends it early."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus, sleep, sleep_async, step, workflow
from dbosflow.errors import ConfigurationError, WaitTimeoutError
from tests.behaviour.ledger import entries, note
from tests.behaviour.tables import records, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


@step
async def woken() -> None:
    note("woken")


@workflow
async def sleeping(seconds: float) -> str:
    await sleep_async(seconds)
    await woken()
    return "awake"


@workflow
def sleeping_on_thread(seconds: float) -> str:
    sleep(seconds)
    woken.run()
    return "awake"


@workflow
async def sleeping_in_branches(seconds: float) -> str:
    await asyncio.gather(*(sleep_async(seconds) for _ in range(3)), woken_later(seconds))
    return "awake"


async def woken_later(seconds: float) -> None:
    await sleep_async(timedelta(seconds=seconds))
    await woken()


EVERYWHERE = pytest.mark.parametrize("flow", [sleeping, sleeping_on_thread, sleeping_in_branches])


def wake_times(url: str) -> list[datetime]:
    """When each recorded sleep ends, by the database's clock."""
    query = "SELECT wake_at FROM dbosflow.step WHERE workflow_id = 'w' AND kind = 'sleep' ORDER BY seq"
    return [wake_at for (wake_at,) in rows(url, query)]


def woken_at() -> list[datetime]:
    """When the steps after the sleep began. The database of the tests has the same clock."""
    return [datetime.fromtimestamp(entry.at, UTC) for entry in entries()]


@EVERYWHERE
def test_the_wake_time_of_a_sleep_is_on_record_when_it_begins(database_url: str, flow: Any) -> None:
    """By the database's clock, so that it means the same to every worker."""
    with Engine(database_url, grace=0) as engine:
        began = rows(database_url, "SELECT now()")[0][0]
        engine.start(flow.options(workflow_id="w"), 3600)
        sleeps = 4 if flow is sleeping_in_branches else 1
        eventually(lambda: len(wake_times(database_url)) == sleeps)
        wakes = wake_times(database_url)
        ended = rows(database_url, "SELECT now()")[0][0]
        assert all(began + timedelta(hours=1) <= wake <= ended + timedelta(hours=1) for wake in wakes)
        assert engine.handle("w").status() is WorkflowStatus.RUNNING


@EVERYWHERE
def test_a_recovered_workflow_does_not_sleep_anew(database_url: str, flow: Any) -> None:
    """It would take an hour; the recorded time has come meanwhile."""
    with Engine(database_url, grace=0) as engine:
        engine.start(flow.options(workflow_id="w"), 3600)
        sleeps = 4 if flow is sleeping_in_branches else 1
        eventually(lambda: len(wake_times(database_url)) == sleeps)
    rows(database_url, "UPDATE dbosflow.step SET wake_at = now() WHERE kind = 'sleep' RETURNING 1")
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == "awake"
    assert len(entries()) == 1


@EVERYWHERE
def test_no_sleep_ends_early_however_often_it_is_interrupted(database_url: str, flow: Any) -> None:
    """Three owners share one sleep; the wake time stays, and what follows happens after it."""
    recorded: list[list[datetime]] = []
    with Engine(database_url, grace=0) as engine:
        engine.start(flow.options(workflow_id="w"), 1.5)
        sleeps = 4 if flow is sleeping_in_branches else 1
        eventually(lambda: len(wake_times(database_url)) == sleeps)
        recorded.append(wake_times(database_url))
    with Engine(database_url, grace=0) as engine:
        eventually(lambda: engine.handle("w").status() is WorkflowStatus.RUNNING)
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == "awake"
        recorded.append(wake_times(database_url))
    assert recorded[0] == recorded[1]
    assert len(woken_at()) == 1
    assert woken_at()[0] >= recorded[0][-1]


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_an_uninterrupted_sleep_is_not_short(database_url: str, engine: Engine, colour: str) -> None:
    """Also without a crash the wake time is what counts."""
    flow: Any = sleeping if colour == "async" else sleeping_on_thread
    assert engine.run(flow.options(workflow_id="w"), 0.3) == "awake"
    assert woken_at()[0] >= wake_times(database_url)[0]


async def test_a_thousand_sleeps_cost_a_timer_each_and_no_thread(engine: Engine) -> None:
    """Sleeping async workflows hold nothing up: a thousand sleep side by side."""

    @workflow
    async def napping() -> None:
        await sleep_async(0.5)

    handles = await asyncio.gather(*(engine.start_async(napping) for _ in range(1000)))
    await asyncio.gather(*(handle.result_async(PATIENCE) for handle in handles))


def test_a_sleep_can_be_cancelled(database_url: str, engine: Engine) -> None:
    """Under ``asyncio.timeout``, as any other wait."""

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(0.05):
                await sleep_async(3600)
        except TimeoutError:
            return "cancelled"
        return "slept"

    assert engine.run(flow.options(workflow_id="w")) == "cancelled"
    assert records(database_url, "w") == [("sleep#0", "sleep"), ("sleep#0/given-up", "given_up")]


@pytest.mark.parametrize("duration", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_sleep_whose_duration_is_no_number_of_seconds_is_refused(engine: Engine, duration: float | timedelta) -> None:
    """In the body that asks for it, so that it can be caught there."""

    @workflow
    async def on_loop() -> None:
        with pytest.raises(ConfigurationError, match="a sleep's duration"):
            await sleep_async(duration)

    @workflow
    def on_thread() -> None:
        with pytest.raises(ConfigurationError, match="a sleep's duration"):
            sleep(duration)

    engine.run(on_loop)
    engine.run(on_thread)


OUTSIDE: dict[str, Callable[[], Any]] = {
    "blocking": lambda: sleep(0.01),
    "awaitable": lambda: asyncio.run(sleep_async(timedelta(milliseconds=10))),
}


@pytest.mark.parametrize("which", OUTSIDE)
def test_a_durable_sleep_outside_of_a_workflow_is_a_plain_one(which: str) -> None:
    """Unit tests of functions that sleep need no database."""
    OUTSIDE[which]()


def test_a_wait_for_a_result_that_ends_leaves_the_workflow_alone(engine: Engine) -> None:
    """``result(timeout=)`` ends the wait, not what it waits for."""
    handle = engine.start(sleeping, 0.3)
    with pytest.raises(WaitTimeoutError, match="tells what it waits for"):
        handle.result(timeout=0.01)
    assert handle.result(timeout=PATIENCE) == "awake"
