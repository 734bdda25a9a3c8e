"""What queued work costs: shared inserts, claims of many, shared ends; and nothing while there is no work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from psycopg import AsyncConnection

from dbosflow import Queue, Rate, current, workflow
from dbosflow._store.notify import PARTS, listen, queue_topic, topics_of, workflow_topic

if TYPE_CHECKING:
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

WORKFLOWS = 1000
CONCURRENCY = 50
RESTLESS = 30
"""More than an engine may still send because it was opened."""


@workflow
async def costs_queued(number: int) -> int:
    return number


async def test_a_thousand_queued_workflows_are_claimed_and_ended_in_tens_of_statements(
    open_engine: OpenEngine, line: Wire
) -> None:
    """A round of the worker's slots is a claim, a batch of ends, and one query of each client that waits."""
    rounds = WORKFLOWS // CONCURRENCY

    async with open_engine() as engine, open_engine(executes=False) as client:
        queued = costs_queued.options(queue="costs")
        with line.counted() as counts:
            handles = await asyncio.gather(*(client.start_async(queued, number) for number in range(WORKFLOWS)))
        assert counts.executed["workflow.enqueue"] <= 3
        assert counts.others.total() <= 3 + RESTLESS
        with line.counted() as counts:
            serving = asyncio.ensure_future(engine.run_worker_async("costs", concurrency=CONCURRENCY))
            await asyncio.gather(*(handle.result_async() for handle in handles))
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        assert rounds <= counts.executed["claim.claim"] <= 5 * rounds
        assert counts.batches <= 5 * rounds
        assert counts.executed["workflow.outcomes"] <= 5 * rounds + RESTLESS
        assert counts.executed["step.history"] == 0
        assert counts.others.total() <= 20 * rounds


async def test_what_workflows_have_used_is_corrected_beside_the_batches_many_at_a_time(
    open_engine: OpenEngine, line: Wire
) -> None:
    """A statement for all that wait meanwhile. A workflow of no queue sends none."""
    workflows, calls = 50, 20

    @workflow(name="costs_using")
    async def using() -> None:
        for number in range(calls):
            await current().use_async(number)

    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(using)
        assert counts.executed["used_units.use"] == 0
        await engine.queues.apply_async(Queue("costs", rate=Rate(10_000, per=1, bucket="api")))
        serving = asyncio.ensure_future(engine.run_worker_async("costs", concurrency=workflows))
        with line.counted() as counts:
            handles = await asyncio.gather(
                *(engine.start_async(using.options(queue="costs", units=3)) for _ in range(workflows))
            )
            await asyncio.gather(*(handle.result_async() for handle in handles))
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert 1 <= counts.executed["used_units.use"] <= 5 * calls


async def test_a_lone_queued_workflow_costs_an_insert_a_claim_and_an_end(open_engine: OpenEngine, line: Wire) -> None:
    """A hint names the queue, so its worker claims once; and again, if it hears meanwhile that one before is over.

    The hints follow the rows of both sides.
    """
    workflows = 50

    async with open_engine() as engine, open_engine(executes=False) as client:
        serving = asyncio.ensure_future(engine.run_worker_async("costs", concurrency=CONCURRENCY))
        with line.counted() as counts:
            for number in range(workflows):
                await (await client.start_async(costs_queued.options(queue="costs"), number)).result_async()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert counts.executed["workflow.enqueue"] == workflows
        assert counts.executed["notify.notify_behind"] == 2 * workflows
        assert counts.executed["batch lone_runs_ends"] == counts.batches == workflows
        assert counts.executed["claim.claim"] <= 2 * workflows + RESTLESS


@pytest.mark.parametrize("workflow_id", [None, "chosen"])
async def test_an_enqueue_under_a_new_id_tells_workers_alone(
    open_engine: OpenEngine, line: Wire, workflow_id: str | None
) -> None:
    """Nobody waits for a workflow of an id that was made just now. With one that was chosen, somebody may."""
    heard: list[str] = []
    async with (
        await AsyncConnection.connect(line.url, autocommit=True) as listener,
        open_engine(executes=False) as client,
    ):
        listener.add_notify_handler(lambda one: heard.append(one.payload))
        await listen(listener, "dbosflow", PARTS)
        await client.start_async(costs_queued.options(queue="costs", workflow_id=workflow_id), 1)
        await listener.execute("SELECT 1")  # the server sends what was notified before it answers
    topics = [topic for payload in heard for topic in topics_of(payload)]
    assert topics == [queue_topic("costs"), *([workflow_topic("chosen")] if workflow_id else [])]
