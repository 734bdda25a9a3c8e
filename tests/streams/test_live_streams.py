"""Transformers over real streams: of a running workflow, of one that fails, and inside a workflow's body."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine, read_stream_async, step, streams, workflow, write_stream_async
from dbosflow.errors import StreamFailedError
from dbosflow.streams import stages
from tests.behaviour.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 12
squared: list[int] = []


@workflow
async def counting(count: int) -> None:
    for number in range(count):
        await write_stream_async("k", number)


@workflow
async def failing_live(count: int) -> None:
    await counting.definition.function(count)
    raise LookupError


@step
async def square(number: int) -> int:
    squared.append(number)
    await asyncio.sleep(0)
    return number * number


class State:
    """Where the workflow below is interrupted."""

    at = 0
    interruption = Interruption()


@workflow
async def squaring(count: int, concurrency: int) -> list[int]:
    """A step for each value of another workflow's stream."""
    source = await counting.start_async(count)
    values = read_stream_async(source.workflow_id, "k", type=int)
    results = []
    async with streams.map_async(values, square, concurrency=concurrency) as squares:
        async for result in squares:
            results.append(result)
            if len(results) == State.at:
                await State.interruption.point_async()
    return results


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An open engine in this process, hosted on a thread."""
    with Engine(database_url) as engine:
        yield engine


def test_a_live_stream_goes_through_a_pipe(engine: Engine) -> None:
    reader = engine.read_stream(engine.start(counting, COUNT).workflow_id, "k", type=int)
    values = streams.pipe(reader, stages.skip(2), stages.map(str), stages.chunk(4))
    assert streams.collect(values) == [["2", "3", "4", "5"], ["6", "7", "8", "9"], ["10", "11"]]


async def test_a_transformer_reads_the_values_of_a_channel(database_url: str) -> None:
    async with Engine(database_url) as engine:
        handle = await engine.start_async(counting, COUNT)
        channel = engine.read_stream_async(handle.workflow_id, "k", type=int)
        values = streams.map_async(channel, square, concurrency=3)
        assert await streams.collect(values) == [number * number for number in range(COUNT)]


def test_a_reader_goes_on_where_a_transformer_left_it(engine: Engine) -> None:
    workflow_id = engine.start(counting, COUNT).workflow_id
    reader = engine.read_stream(workflow_id, "k", type=int)
    assert streams.collect(streams.take(reader, 5)) == [0, 1, 2, 3, 4]
    rest = engine.read_stream(workflow_id, "k", start=reader.offset, type=int)
    assert streams.collect(rest) == [5, 6, 7, 8, 9, 10, 11]


def test_a_failed_workflow_is_told_behind_its_values(engine: Engine) -> None:
    """In both colours; a part of a chunk is not lost."""
    workflow_id = engine.start(failing_live, 5).workflow_id
    values = streams.chunk(engine.read_stream(workflow_id, "k"), 3)
    assert [next(values), next(values)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(StreamFailedError) as raised:
        next(values)
    assert isinstance(raised.value.__cause__, LookupError)

    async def main() -> None:
        chunks = streams.chunk(engine.read_stream_async(workflow_id, "k"), 3)
        assert [await anext(chunks), await anext(chunks)] == [[0, 1, 2], [3, 4]]
        with pytest.raises(StreamFailedError):
            await anext(chunks)

    asyncio.run(main())


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("interrupted_at", [1, 5, COUNT])
def test_steps_over_a_stream_are_durable(database_url: str, concurrency: int, interrupted_at: int) -> None:
    """In a workflow's body, as many at a time as it likes: a replay finds what each value's step gave."""
    squared.clear()
    State.at, State.interruption = interrupted_at, Interruption()
    result = State.interruption.two_passes(database_url, squaring, COUNT, concurrency)
    assert result == [number * number for number in range(COUNT)]
    assert set(squared) == set(range(COUNT))
    assert len(squared) <= COUNT + concurrency - 1, "a step that was on record ran again"
