"""What streams cost: shared batches and large blocks for a writer, one query a commit for all readers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dbosflow import workflow, write_stream_async
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from tests.behaviour.gate import Gate
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

VALUES = 10_000
BREATH = 64
"""Values that a body writes before it lets the loop go on; between, no batch can begin."""
RESTLESS = 20
"""More than an engine may still send because it was opened."""


@workflow
async def costs_writing(values: int) -> None:
    for number in range(values):
        await write_stream_async("k", number)


async def test_a_body_that_writes_without_pause_fills_blocks(
    open_engine: OpenEngine, line: Wire, database_url: str
) -> None:
    """A batch, and a block, for what gathered while the last one was under way: never one for a value."""
    most = VALUES // BREATH + RESTLESS

    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(costs_writing, VALUES)
        assert counts.batches <= most
        assert counts.others.total() <= most + RESTLESS
        assert counts.sent("worker") <= 8 * VALUES + 1000 * most
    query = "SELECT count(*), sum(count) FROM dbosflow.stream_block WHERE kind = 'values'"
    ((blocks, values),) = rows(database_url, query)
    assert values == VALUES
    assert VALUES / 512 <= blocks <= VALUES / 512 + most


async def test_bodies_that_write_at_a_time_share_their_batches(open_engine: OpenEngine, line: Wire) -> None:
    """As many as one of them would need, or a few more."""
    workflows, values = 50, 200

    async with open_engine() as engine:
        with line.counted() as counts:
            await asyncio.gather(*(engine.run_async(costs_writing, values) for _ in range(workflows)))
        assert counts.batches <= 3 * values // BREATH + RESTLESS


@pytest.mark.parametrize("process", ["the writer's", "another"])
async def test_readers_of_a_stream_share_one_query_a_flush(
    open_engine: OpenEngine, line: Wire, gate: Gate, process: str
) -> None:
    """Two hundred of them send as many as one, in the writer's process and in another."""
    values = 50

    @workflow(name=f"costs_writing_when_let_for_{process}")
    async def writing_when_let() -> None:
        for number in range(values):
            await gate.passed()
            await write_stream_async("k", number)

    async with open_engine() as engine, open_engine(executes=False) as client:
        for readers in (1, 200):
            handle = await engine.start_async(writing_when_let)
            reading = client if process == "another" else engine
            channels = [reading.read_stream_async(handle.workflow_id, "k") for _ in range(readers)]
            with line.counted() as counts:
                for number in range(values):
                    gate.open()
                    items = await asyncio.gather(*map(anext, channels))
                    assert {item.value for item in items} == {number}
                items = await asyncio.gather(*map(anext, channels))
                assert all(item.closed for item in items)
            assert counts.batches <= values + 2
            # One as they come, one a flush, and perhaps one more where hint and query cross.
            assert counts.executed["stream.fetch"] <= 2 + values + RESTLESS
            hints = counts.executed["notify.notify"] + counts.executed["notify.notify_behind"]
            assert values <= hints <= values + 2


async def test_values_that_outsiders_write_at_a_time_go_in_one_statement(
    open_engine: OpenEngine, line: Wire, gate: Gate
) -> None:
    """A thousand writers of one process: one append or a few, as many blocks, and one hint to all readers."""

    @workflow(name="costs_with_an_input", inputs=["in"])
    async def with_an_input() -> None:
        await gate.passed()

    async with open_engine() as engine:
        handle = await engine.start_async(with_an_input)
        workflow_id = handle.workflow_id
        with line.counted() as counts:
            await asyncio.gather(*(engine.write_stream_async(workflow_id, "in", number) for number in range(1000)))
        gate.open()
        await handle.result_async()
        assert counts.executed["stream.append"] <= 5
        query = "SELECT count(*) FROM dbosflow.stream_block WHERE workflow_id = %s AND kind = 'values'"
        assert rows(line.url, query, workflow_id)[0][0] <= 5
        assert counts.batches == 0
        assert counts.others.total() <= 10 + RESTLESS
