"""What steps cost: one batch each where they come one after the other, and shared batches where they do not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import step, workflow

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow
    from tests.behaviour.gate import Gate
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

STEPS = 200
RESTLESS = 40
"""More than an engine may still send because it was opened: each of its services looks around once or twice."""
STEP_BYTES = 650
"""What a batch of one small record may take on the wire."""


@step
async def costs_step(number: int) -> int:
    return number


@step
def costs_step_on_thread(number: int) -> int:
    return number


@workflow
async def costs_sequence(steps: int) -> int:
    return sum([await costs_step(number) for number in range(steps)])


@workflow
def costs_sequence_on_thread(steps: int) -> int:
    return sum(costs_step_on_thread(number) for number in range(steps))


@pytest.mark.parametrize("flow", [costs_sequence, costs_sequence_on_thread])
async def test_sequential_steps_cost_a_round_trip_each_and_nothing_else(
    open_engine: OpenEngine, line: Wire, flow: Workflow[[int], Any, int]
) -> None:
    """On no connection; the statement is prepared once, so what is sent is its values."""
    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(flow, STEPS)
        batches = {name: count for name, count in counts.executed.items() if name.startswith("batch ")}
        assert batches == {"batch lone_starts": 1, "batch lone_runs_records": STEPS, "batch lone_runs_ends": 1}
        assert counts.others.total() <= RESTLESS
        assert STEPS + 2 <= counts.round_trips("worker") <= STEPS + 2 + RESTLESS
        assert counts.sent("worker") <= STEP_BYTES * (STEPS + RESTLESS)


async def test_each_shape_of_a_batch_is_prepared_once(open_engine: OpenEngine, line: Wire) -> None:
    """In the life of an engine, however often it is sent and however many rows it has."""
    async with open_engine() as engine:
        for count in (1, 10, 100):
            await asyncio.gather(*(engine.run_async(costs_sequence, 3) for _ in range(count)))
    counts = line.since(0)
    prepared = {name: count for name, count in counts.prepared.items() if name.startswith("batch ")}
    assert prepared == dict.fromkeys(prepared, 1)
    assert prepared.keys() >= {"batch lone_starts", "batch lone_runs_records", "batch lone_runs_ends"}
    assert counts.prepared["notify.notify"] <= 2  # also by the probe for a pooler


async def test_steps_of_concurrent_workflows_share_their_batches(open_engine: OpenEngine, line: Wire) -> None:
    """The batches grow with the steps of one of them, not with their number."""
    workflows, steps = 100, 20

    async with open_engine() as engine:
        with line.counted() as counts:
            await asyncio.gather(*(engine.run_async(costs_sequence, steps) for _ in range(workflows)))
        assert steps + 2 <= counts.batches <= 5 * steps
        assert counts.others.total() <= 5 * steps


async def test_a_thousand_starts_at_once_are_a_handful_of_batches(open_engine: OpenEngine, line: Wire) -> None:
    """Of at most 200 each, so that server and loop work at the same time; the first ends go with the last starts."""
    async with open_engine() as engine:
        with line.counted() as counts:
            await asyncio.gather(*(engine.start_async(costs_sequence, 0) for _ in range(1000)))
        starting = sum(count for name, count in counts.executed.items() if "starts" in name)
        assert 5 <= starting <= 15
        with line.counted() as counts:
            await asyncio.gather(*(engine.run_async(costs_sequence, 0) for _ in range(1000)))
        assert counts.batches <= 15
        assert counts.others.total() <= 20 + RESTLESS


async def test_a_lone_workflow_without_steps_costs_one_batch_and_no_hint(open_engine: OpenEngine, line: Wire) -> None:
    """From its start to its result: its row, and nothing that asks how it went; nobody else can wait for it by then."""
    workflows = 200

    async with open_engine() as engine:
        with line.counted() as counts:
            for _ in range(workflows):
                await engine.run_async(costs_sequence, 0)
        assert counts.executed["batch lone_starts_outcomes"] == counts.batches == workflows
        assert counts.executed["notify.notify"] <= 2  # of the engine, which was opened just now
        assert counts.others.total() <= RESTLESS


async def test_a_replay_of_a_thousand_steps_reads_once_and_writes_its_end(
    open_engine: OpenEngine, line: Wire, gate: Gate
) -> None:
    """However long a history is, it comes in one statement, and what is recorded is not written again."""
    steps = 1000
    recorded = asyncio.Event()

    @workflow(name="costs_waiting_behind_steps")
    async def waiting_behind_steps() -> int:
        total = sum(await asyncio.gather(*(costs_step(number) for number in range(steps))))
        total += await costs_step(1)
        recorded.set()
        await gate.passed()
        return total

    async with open_engine(grace=0) as engine:
        handle = await engine.start_async(waiting_behind_steps)
        await recorded.wait()
    place = len(line.messages)
    gate.open()
    async with open_engine() as engine:
        assert await engine.handle(handle.workflow_id).result_async() == sum(range(steps)) + 1
        counts = line.since(place)
    assert counts.executed["step.history"] == 1
    assert counts.batches <= 3  # with the workflow by which the engine came to rest
    assert not any("records" in name for name in counts.executed)
