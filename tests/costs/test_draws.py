"""What draws cost: a row each, in the statement of the next record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import durable, workflow
from tests.behaviour.tables import rows
from tests.costs.test_steps import costs_step, costs_step_on_thread

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

DRAWS = 50


@workflow
async def costs_draws(draws: int) -> None:
    for _ in range(draws):
        durable.random()


@workflow
def costs_draws_on_thread(draws: int) -> None:
    for _ in range(draws):
        durable.random()


@pytest.mark.parametrize("flow", [costs_draws, costs_draws_on_thread])
async def test_draws_go_with_what_comes_next(
    open_engine: OpenEngine, line: Wire, database_url: str, flow: Workflow[[int], Any, None]
) -> None:
    """Here with the end of the workflow, and with its start if nobody knows it before its result."""
    async with open_engine() as engine:
        for known, sent in (("a", {"lone_starts", "runs_records_ends"}), (None, {"firsts_starts_outcomes_records"})):
            with line.counted() as counts:
                await engine.run_async(flow.options(workflow_id=known), DRAWS)
            batches = {name: count for name, count in counts.executed.items() if name.startswith("batch ")}
            assert batches == {f"batch {name}": 1 for name in sent}
    assert rows(database_url, "SELECT count(*) FROM dbosflow.step WHERE kind = 'drawn'") == [(2 * DRAWS,)]


@workflow
async def costs_draws_and_steps(steps: int) -> None:
    for number in range(steps):
        durable.random()
        durable.now()
        await costs_step(number)


@workflow
def costs_draws_and_steps_on_thread(steps: int) -> None:
    for number in range(steps):
        durable.random()
        durable.now()
        costs_step_on_thread(number)


@pytest.mark.parametrize("flow", [costs_draws_and_steps, costs_draws_and_steps_on_thread])
async def test_a_step_behind_draws_waits_for_one_statement_with_all_of_them(
    open_engine: OpenEngine, line: Wire, flow: Workflow[[int], Any, None]
) -> None:
    """The only wait that they cause."""
    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(flow, DRAWS)
        assert counts.executed["batch runs_records"] == DRAWS
        assert counts.executed["batch lone_runs_records"] == DRAWS
        assert counts.batches == 2 * DRAWS + 2


@workflow
async def costs_generator(draws: int) -> float:
    generator = durable.Random()
    return sum(generator.random() for _ in range(draws))


async def test_a_generator_costs_one_row_however_much_is_drawn_from_it(
    open_engine: OpenEngine, line: Wire, database_url: str
) -> None:
    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(costs_generator, 10_000)
        assert counts.batches == 1
    assert rows(database_url, "SELECT count(*) FROM dbosflow.step") == [(1,)]
