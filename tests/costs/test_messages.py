"""What messages cost: a statement for those that are sent at a time, and a page and a record to receive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow import Message, recv_async, send_async, set_event_async, workflow
from tests.behaviour.tables import rows
from tests.support import eventually_async

if TYPE_CHECKING:
    from tests.behaviour.gate import Gate
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

RESTLESS = 20
"""More than an engine may still send because it was opened."""


async def test_a_message_is_one_statement(open_engine: OpenEngine, line: Wire, gate: Gate) -> None:
    @workflow(name="costs_receiving_nothing")
    async def receiving_nothing() -> None:
        await gate.passed()

    async with open_engine() as engine, open_engine(executes=False) as client:
        await engine.start_async(receiving_nothing.options(workflow_id="w"))
        with line.counted() as counts:
            for number in range(10):
                await client.send_async("w", number)
        assert counts.executed["message.send"] == 10
        assert counts.batches == 0
        with line.counted() as counts:
            await asyncio.gather(*(client.send_async("w", number) for number in range(1000)))
        assert counts.executed["message.send"] <= 1000 / 64 + 5
        gate.open()


async def test_what_is_there_is_received_with_one_page_and_a_record_each(
    open_engine: OpenEngine, line: Wire, gate: Gate
) -> None:
    """The limit of a wait costs nothing where there is no wait."""

    @workflow(name="costs_receiving")
    async def receiving(count: int) -> list[Any]:
        await gate.passed()
        return [await recv_async("t", timeout=3600) for _ in range(count)]

    async with open_engine() as engine:
        handle = await engine.start_async(receiving.options(workflow_id="w"), 20)
        await asyncio.gather(*(engine.send_async("w", number, "t") for number in range(20)))
        with line.counted() as counts:
            gate.open()
            assert await handle.result_async() == list(range(20))
        assert counts.executed["stream.fetch"] == 1
        assert counts.batches <= 21
        assert rows(line.url, "SELECT kind, count(*) FROM dbosflow.step GROUP BY kind") == [("recv", 20)]


async def test_a_wait_with_a_limit_costs_one_more_record(open_engine: OpenEngine, line: Wire) -> None:
    @workflow(name="costs_waiting")
    async def waiting() -> Any:
        return await recv_async("t", timeout=3600)

    async with open_engine() as engine:
        with line.counted() as counts:
            handle = await engine.start_async(waiting.options(workflow_id="w"))
            await eventually_async(lambda: bool(rows(line.url, "SELECT 1 FROM dbosflow.step")))
            await engine.send_async("w", 1, "t")
            assert await handle.result_async() == 1
        assert counts.batches <= 4  # start, deadline, record, end
        assert counts.executed["stream.fetch"] <= 6  # a hint may cross a look


async def test_an_event_costs_what_a_value_of_a_stream_costs(open_engine: OpenEngine, line: Wire) -> None:
    """No record; a block for those that gather; and no row at the end."""

    @workflow(name="costs_setting_events")
    async def setting(count: int) -> None:
        for number in range(count):
            await set_event_async("state", number)

    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(setting.options(workflow_id="w"), 1000)
        assert counts.batches <= 1000 / 64 + RESTLESS
    assert rows(line.url, "SELECT 1 FROM dbosflow.step") == []
    found = rows(line.url, "SELECT kind, sum(count), count(*) < 30 FROM dbosflow.stream_block GROUP BY kind")
    assert found == [("values", 1000, True)]


async def test_a_send_inside_is_one_statement_and_one_record(open_engine: OpenEngine, line: Wire, gate: Gate) -> None:
    @workflow(name="costs_staying")
    async def staying() -> None:
        await gate.passed()

    @workflow(name="costs_sending")
    async def sending(count: int) -> None:
        for number in range(count):
            await send_async("r", number)

    async with open_engine() as engine:
        await engine.start_async(staying.options(workflow_id="r"))
        with line.counted() as counts:
            await engine.run_async(sending.options(workflow_id="s"), 20)
        assert counts.executed["message.send"] == 20
        assert counts.batches <= 22
        gate.open()


async def test_a_start_with_a_message_is_one_statement(open_engine: OpenEngine, line: Wire) -> None:
    """And one more where the workflow is there already."""

    @workflow(name="costs_starting_with_a_message")
    async def receiving(count: int) -> list[Any]:
        return [await recv_async("t") for _ in range(count)]

    async with open_engine(executes=False) as client:
        target = receiving.options(workflow_id="w", queue="nobody's")
        with line.counted() as counts:
            await client.start_async(target, 2, message=Message("t", 1))
        assert counts.others["workflow.enqueue with message"] == 1
        assert counts.others["workflow.enqueue"] == 0
        assert counts.others["message.send"] == 0
        with line.counted() as counts:
            await client.start_async(target, 2, message=Message("t", 2))
        assert counts.others["message.send"] == 1
