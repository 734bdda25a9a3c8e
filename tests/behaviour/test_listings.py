"""Listings: of workflows what is asked for, in words or as a filter; of steps what was done, and how long it took."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import WorkflowFilter, WorkflowStatus, sleep_async, step, workflow
from dbosflow.errors import ConfigurationError
from dbosflow.testing import crash_at
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import Engine
    from dbosflow.types import StepInfo


@workflow(name="listed well")
def well() -> None: ...


@workflow(name="listed badly")
def badly() -> None:
    raise ValueError("no")


@pytest.fixture
def listed(engine: Engine, client: Engine) -> Engine:
    """An engine whose database holds workflows of each kind."""
    for number in range(2):
        engine.run(well.options(workflow_id=f"well-{number}"))
    with pytest.raises(ValueError, match="no"):
        engine.run(badly.options(workflow_id="badly"))
    client.start(well.options(workflow_id="queued", queue="later"))
    return client


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ({}, ["queued", "badly", "well-1", "well-0"]),
        ({"status": "failed"}, ["badly"]),
        ({"status": WorkflowStatus.SUCCEEDED}, ["well-1", "well-0"]),
        ({"name": "listed well", "limit": 2}, ["queued", "well-1"]),
        ({"queue": "later"}, ["queued"]),
        ({"status": "failed", "name": "listed well"}, []),
        ({"limit": 0}, []),
    ],
    ids=str,
)
def test_a_listing_takes_words_or_a_filter(listed: Engine, words: dict[str, Any], ids: list[str]) -> None:
    """And so does its awaitable twin."""

    async def twin() -> list[str]:
        return [info.id for info in await listed.list_workflows_async(**words)]

    assert [info.id for info in listed.list_workflows(**words)] == ids
    assert [info.id for info in listed.list_workflows(WorkflowFilter(**words))] == ids
    assert asyncio.run(twin()) == ids


@pytest.mark.parametrize(
    ("args", "words", "said"),
    [
        ((), {"status": "done"}, "queued, scheduled, running"),
        ((), {"limit": -1}, "limit"),
        ((), {"name": 3}, "name"),
        (("failed",), {}, "status="),
        ((WorkflowFilter(),), {"status": "failed"}, "both"),
    ],
)
def test_a_listing_refuses_what_it_cannot_mean(engine: Engine, args: Any, words: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        engine.list_workflows(*args, **words)


failures: list[int] = []


@step(max_attempts=4, interval=0)
def flaky(times: int) -> str:
    failures.append(1)
    if len(failures) <= times:
        raise ValueError("not yet")
    return "at last"


@workflow(name="retries and waits")
async def retries_and_waits() -> None:
    await flaky.run_async(2)
    handle = await well.start_async()
    await handle.result_async()
    await asyncio.wait({asyncio.ensure_future(sleep_async(7200))}, timeout=0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sleep_async(1800), 0.01)
    await asyncio.gather(sleep_async(0), sleep_async(3600))


def test_a_listing_numbers_steps_as_people_count(engine: Engine) -> None:
    """Attempts from 1 on, also in another owner; sleeps with their length; children by their id."""
    failures.clear()
    with crash_at(engine, "w", "flaky#0@1.1", when="after"):
        handle = engine.start(retries_and_waits.options(workflow_id="w"))
        steps = eventually(lambda: [one for one in engine.list_steps("w") if one.duration == 3600] and found(engine))
    assert [(one.number, one.attempts) for one in steps if one.attempt] == [(1, 3), (2, 3), (3, 3)]
    assert len({(one.attempt or "").partition(".")[0] for one in steps if one.attempt}) == 2
    child_id = next(one.child_id for one in steps if one.kind == "child")
    assert engine.handle(child_id or "").status() == "succeeded"
    waited = next(one for one in steps if one.kind == "result")
    assert waited.child_id == child_id
    assert waited.duration > 0
    lengths = [one.duration for one in steps if one.kind == "sleep"]
    assert lengths[0] == 7200
    assert 0 < lengths[1] < 1800  # it was given up
    assert {round(length) for length in lengths[2:]} == {0, 3600}
    handle.cancel()


@workflow(name="two naps")
async def two_naps() -> None:
    await asyncio.gather(sleep_async(0), sleep_async(0))


def test_a_listing_says_that_a_sleep_took_until_it_was_over(engine: Engine, execute: Callable[..., list[Any]]) -> None:
    """Nobody may have been there to wake it when its time was over."""
    engine.run(two_naps.options(workflow_id="w"))
    late = "UPDATE dbosflow.step SET recorded_at = recorded_at + interval '1 hour' WHERE kind = 'woken'"
    assert execute(f"{late} RETURNING key")
    naps = [one.duration for one in engine.list_steps("w") if one.kind == "sleep"]
    assert [round(one / 60) for one in naps] == [60, 60]


def found(engine: Engine) -> list[StepInfo]:
    return engine.list_steps("w")
