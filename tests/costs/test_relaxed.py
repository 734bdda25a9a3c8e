"""What relaxed steps cost: a row each, in whatever statement goes out next; and a step behind them, one wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import step, workflow
from tests.behaviour.tables import rows
from tests.costs.test_steps import costs_step, costs_step_on_thread

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

STEPS = 60
"""Fewer than those after which code on the loop yields control."""


@step(relaxed=True)
async def costs_relaxed_step(number: int) -> int:
    return number


@step(relaxed=True)
def costs_relaxed_step_on_thread(number: int) -> int:
    return number


@workflow
async def costs_relaxed(steps: int) -> None:
    for number in range(steps):
        await costs_relaxed_step(number)


@workflow
async def costs_relaxed_and_steps(steps: int) -> None:
    for number in range(steps):
        await costs_relaxed_step(number)
        await costs_relaxed_step(number)
        await costs_step(number)


@workflow
def costs_relaxed_and_steps_on_thread(steps: int) -> None:
    for number in range(steps):
        costs_relaxed_step_on_thread(number)
        costs_relaxed_step_on_thread(number)
        costs_step_on_thread(number)


async def test_relaxed_steps_go_with_what_comes_next(open_engine: OpenEngine, line: Wire, database_url: str) -> None:
    """Here with the end of the workflow, in one statement; and with its start, if nobody knows it before its result."""
    async with open_engine() as engine:
        for known, sent in (("a", {"lone_starts", "runs_records_ends"}), (None, {"firsts_starts_outcomes_records"})):
            with line.counted() as counts:
                await engine.run_async(costs_relaxed.options(workflow_id=known), STEPS)
            batches = {name: count for name, count in counts.executed.items() if name.startswith("batch ")}
            assert batches == {f"batch {name}": 1 for name in sent}
    assert rows(database_url, "SELECT count(*) FROM dbosflow.step") == [(2 * STEPS,)]


@pytest.mark.parametrize("flow", [costs_relaxed_and_steps, costs_relaxed_and_steps_on_thread])
async def test_a_step_behind_relaxed_ones_waits_once_for_all_of_them(
    open_engine: OpenEngine, line: Wire, flow: Workflow[[int], Any, None]
) -> None:
    """On the loop that is one statement; a thread may see its first outcome go out alone."""
    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(flow, STEPS)
        assert 2 * STEPS + 2 <= counts.batches <= (2 if flow is costs_relaxed_and_steps else 3) * STEPS + 2
