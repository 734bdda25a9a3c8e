"""P2: a recorded step never runs again; and a replay takes the path of the live run, whatever it depended on."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus, step, workflow
from dbosflow.errors import WorkflowBlockedError
from tests.behaviour import ledger
from tests.behaviour.interruption import Interruption
from tests.behaviour.programs import replaying
from tests.behaviour.tables import disorder, records
from tests.behaviour.worker_pool import QUEUE

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartPool

PATIENCE = 60.0
KILLS = 3


@pytest.mark.parametrize(
    ("name", "count", "every"),
    [
        ("in_turn", 80, 15),
        ("in_turn_on_thread", 80, 15),
        ("side_by_side", 6, 12),
        ("racing", 15, 5),
        ("pooling", 40, 8),
        ("timing_out", 25, 8),
    ],
)
def test_a_recorded_step_never_runs_again(
    database_url: str, start_pool: StartPool, client: Engine, *, name: str, count: int, every: int
) -> None:
    """Its owners are killed at random moments. What was on record then is not done again.

    The programs, whose paths depend on timing, fail by themselves if a replay shows them anything else.
    """
    pool = start_pool("replaying")
    flow: Any = getattr(replaying, name)
    handle = client.start(flow.options(workflow_id="w", queue=QUEUE), count)
    kills = pool.kill_during("w", kills=KILLS, every=every)
    result = handle.result(timeout=PATIENCE)
    assert kills, "it was over before anybody was killed"
    assert pool.done_again("w") == set()
    assert max(Counter(ledger.noted()).values()) <= 1 + kills
    if name.startswith("in_turn"):
        assert result == [f"step {number}" for number in range(count)]
    if name == "side_by_side":
        places = itertools.product(range(count), range(replaying.POSITIONS))
        assert sorted(result) == sorted(f"{number}.{position}" for number, position in places)
    if name == "pooling":
        assert sorted(int(one.partition(" ")[0]) for one in result) == list(range(count))
    assert disorder(database_url) == []


@step
async def slow_at_first(seconds: float) -> str:
    ledger.note("slow")
    await asyncio.sleep(seconds)
    return "in time"


def too_long(interruption: Interruption) -> float:
    """How long the step takes: nothing at all in the second pass."""
    return 0 if interruption.over else 60


@step
async def noted(what: str) -> str:
    ledger.note(what)
    return what


async def with_timeout(interruption: Interruption) -> str:
    """The documented way to give a step up."""
    try:
        async with asyncio.timeout(0.1):
            return await slow_at_first(too_long(interruption))
    except TimeoutError:
        return await noted("fallback")


async def with_wait_for(interruption: Interruption) -> str:
    """The older way."""
    try:
        return await asyncio.wait_for(slow_at_first(too_long(interruption)), 0.1)
    except TimeoutError:
        return await noted("fallback")


async def with_cancel(interruption: Interruption) -> str:
    """By hand."""
    task = asyncio.create_task(slow_at_first(too_long(interruption)))
    await noted("meanwhile")
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return await noted("fallback")


async def with_failing_sibling(interruption: Interruption) -> str:
    """A group cancels the siblings of the one that failed."""

    async def failing() -> None:
        await noted("meanwhile")
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(slow_at_first(too_long(interruption)))
            group.create_task(failing())
    except* ValueError:
        await noted("fallback")
    return "fallback"


async def with_timeout_in_branch(interruption: Interruption) -> str:
    """In a branch, beside others."""
    results = await asyncio.gather(with_timeout(interruption), noted("beside"))
    return results[0]


@pytest.mark.parametrize(
    "cancel", [with_timeout, with_wait_for, with_cancel, with_failing_sibling, with_timeout_in_branch]
)
def test_a_step_that_was_cancelled_stays_cancelled(database_url: str, cancel: Any) -> None:
    """A replay takes the same way out, although the step would be fast this time; its body does not run again."""
    interruption = Interruption()

    async def body() -> str:
        result: str = await cancel(interruption)
        await interruption.point_async()
        return result

    body.__qualname__ = f"cancelled {cancel.__name__}"
    flow = workflow(body)
    workflow_id = interruption.first_pass(database_url, flow)
    before = records(database_url, workflow_id)
    assert [kind for _, kind in before].count("given_up") == 1
    with Engine(database_url) as engine:
        assert engine.handle(workflow_id, flow).result(timeout=PATIENCE) == "fallback"
    assert records(database_url, workflow_id) == before
    counts = Counter(ledger.noted())
    assert counts["slow"] == counts["fallback"] == 1
    assert disorder(database_url) == []


def test_a_step_that_the_first_owner_did_not_finish_is_done_by_the_next(database_url: str) -> None:
    """An engine that closes gives running bodies its grace; what is not over then runs again elsewhere."""

    @workflow
    async def flow() -> str:
        await noted("first")
        return await slow_at_first(60 if len(ledger.noted()) == 1 else 0)

    with Engine(database_url, grace=0.05) as engine:
        handle = engine.start(flow.options(workflow_id="w"))
        while ledger.noted() != ["first", "slow"]:
            assert handle.status() is WorkflowStatus.RUNNING
    with Engine(database_url) as engine:
        assert engine.handle("w", flow).result(timeout=PATIENCE) == "in time"
    assert ledger.noted() == ["first", "slow", "slow"]


def test_code_that_no_longer_asks_for_a_record_is_parked(database_url: str) -> None:
    """A branch was removed from code in flight: nothing that is on record is passed over, and nothing runs."""
    interruption = Interruption()

    async def first() -> str:
        return await noted("first")

    async def removed() -> str:
        return await noted("removed")

    async def last() -> str:
        return await noted("last")

    @workflow
    async def flow() -> list[str]:
        branches = [first(), last()] if interruption.over else [first(), removed(), last()]
        results = await asyncio.gather(*branches)
        await interruption.point_async()
        return [*results, await noted("end")]

    workflow_id = interruption.first_pass(database_url, flow)
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match="removed#0/noted#0"):
        engine.handle(workflow_id, flow).result(timeout=PATIENCE)
    assert sorted(ledger.noted()) == ["first", "last", "removed"]


def test_a_branch_that_new_code_adds_changes_no_keys_of_others(database_url: str) -> None:
    """A branch is known by its function and how many of it came before, not by its place among all."""
    interruption = Interruption()

    async def fetching(what: str) -> str:
        return await noted(what)

    async def logging_only() -> None:
        await noted("new")

    @workflow
    async def flow() -> list[str]:
        tasks = [asyncio.create_task(logging_only())] if interruption.over else []
        results = await asyncio.gather(*(fetching(what) for what in "ab"))
        await interruption.point_async()
        await asyncio.gather(*tasks)
        return list(results)

    assert interruption.two_passes(database_url, flow) == ["a", "b"]
    assert Counter(ledger.noted()) == {"a": 1, "b": 1, "new": 1}
