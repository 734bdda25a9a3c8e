"""Readers that wait for a stream of a child, whose id follows from its parent's, are told when it comes whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, map_workflow_async, step, workflow, write_stream_async
from tests.runtime.openings.programs import PATIENCE, gates
from tests.support import eventually_async

if TYPE_CHECKING:
    from dbosflow.types import StreamValue


@step(relaxed=True)
async def awaited_step(number: int) -> int:
    return number


@workflow
async def awaited_end(number: int) -> int:
    return number


@workflow
async def awaited_records(number: int) -> int:
    return await awaited_step(number)


@workflow
async def awaited_values(number: int) -> int:
    await write_stream_async("values", number)
    return number


@workflow
async def awaited_other_values(number: int) -> int:
    await write_stream_async("others", number)
    return number


CHILDREN: dict[str, Any] = {
    "end": awaited_end,
    "records": awaited_records,
    "values": awaited_values,
    "values elsewhere": awaited_other_values,
}


@workflow
async def awaited_parent(of: str) -> int:
    await gates[-1].passed()
    return int(await CHILDREN[of](1))


@workflow
async def awaited_map(of: str) -> int:
    await gates[-1].passed()
    return sum(await map_workflow_async(CHILDREN[of], [1], concurrency=2))


@pytest.mark.parametrize(("flow", "suffix"), [(awaited_parent, ""), (awaited_map, "+0")])
@pytest.mark.parametrize("of", CHILDREN)
@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["here", "elsewhere"])
async def test_a_reader_is_told_of_what_comes_or_that_nothing_will(
    engine: Engine, database_url: str, *, flow: Any, suffix: str, of: str, is_elsewhere: bool
) -> None:
    """Both engines look for nothing by the clock."""
    async with Engine(database_url, safety_poll=3600) as other:
        reading: Any = other if is_elsewhere else engine
        tails = reading._core.services.hub._tails
        parent = await engine.start_async(flow.options(workflow_id="p"), of)
        child_id = f"p/{CHILDREN[of].__name__}#0{suffix}"
        async with reading.read_stream_async(child_id, "values", wait_for=PATIENCE) as values:
            first: asyncio.Future[StreamValue[Any]] = asyncio.ensure_future(anext(aiter(values)))
            await eventually_async(lambda: any(tail.asks and tail.end is not None for tail in tails.values()))
            gates[-1].open()
            found = await first
        assert found.closed is (of != "values")
        assert await parent.result_async() == 1
