"""Readers follow a stream live or long afterwards, from any offset, as many as there are, each at its own pace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, workflow, write_stream_async
from dbosflow.errors import (
    ConfigurationError,
    StreamTimeoutError,
)
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram
    from tests.behaviour.gate import Gate

PATIENCE = 60.0
COUNT = 1000


@workflow
async def writing_many(count: int) -> None:
    for number in range(count):
        await write_stream_async("k", number)


def test_a_value_is_readable_while_its_workflow_waits(engine: Engine, gate: Gate, gated: Any) -> None:
    """Reading is live: each value arrives while the writer waits for leave to write the next."""
    with engine.read_stream(engine.start(gated, 5).workflow_id, "k", timeout=PATIENCE) as reader:
        for number in range(5):
            gate.open()
            assert next(reader) == number
            assert reader.offset == number + 1
        with pytest.raises(StopIteration):
            next(reader)
        assert reader.closed


def test_a_stream_can_be_read_from_any_offset(database_url: str, engine: Engine, client: Engine) -> None:
    """At the first, within a block, at the last, at the end; in any process. Nothing is skipped or comes twice."""
    workflow_id = engine.start(writing_many, COUNT).workflow_id
    assert engine.read_stream(workflow_id, "k").read_all() == (list(range(COUNT)), True)
    blocks = rows(database_url, "SELECT \"offset\", count FROM dbosflow.stream_block WHERE kind = 'values'")
    assert any(count > 2 for _, count in blocks), "this test wants blocks that hold several values"
    starts = {0, 1, COUNT - 1, COUNT, *(offset + part for offset, count in blocks for part in (-1, 0, 1, count // 2))}
    for one in (engine, client):
        for start in sorted(start for start in starts if start >= 0):
            reader = one.read_stream(workflow_id, "k", start=start)
            assert reader.offset == start
            assert reader.read_all() == (list(range(start, COUNT)), True)


def test_reading_beyond_the_tail_waits_for_it(engine: Engine, gate: Gate, gated: Any) -> None:
    """An offset that is yet to come: what is before it is not handed out."""
    workflow_id = engine.start(gated, 6).workflow_id
    gate.open(2)
    reader = engine.read_stream(workflow_id, "k", start=4, timeout=0.3)
    with pytest.raises(StreamTimeoutError):
        next(reader)
    gate.open(4)
    assert reader.read_all() == ([4, 5], True)
    assert engine.read_stream(workflow_id, "k", start=1000).read_all() == ([], True)


def test_two_readers_of_one_stream_have_a_place_of_their_own(engine: Engine) -> None:
    """Neither takes anything from the other."""
    workflow_id = engine.start(writing_many, 10).workflow_id
    one, other = engine.read_stream(workflow_id, "k"), engine.read_stream(workflow_id, "k")
    assert [next(one) for _ in range(4)] == [0, 1, 2, 3]
    assert [next(other) for _ in range(2)] == [0, 1]
    assert next(one) == 4
    assert other.read_all() == (list(range(2, 10)), True)
    assert one.read_all() == (list(range(5, 10)), True)


async def test_two_hundred_readers_of_one_stream_while_it_is_written(database_url: str) -> None:
    """In one process, at different places, some slow: each sees every value once; they share a few connections."""

    @workflow
    async def flow() -> None:
        for number in range(COUNT):
            await write_stream_async("k", number)
            if number % 50 == 0:
                await asyncio.sleep(0.005)

    async def read(engine: Engine, reader: int) -> bool:
        channel = engine.read_stream_async("w", "k", start=reader, wait_for=PATIENCE, timeout=PATIENCE)
        expected = reader
        async for item in channel:
            if item.closed:
                break
            assert (item.offset, item.value) == (expected, expected)
            expected += 1
            if reader % 10 == 0 and expected % 100 == 0:
                await asyncio.sleep(0.002)
        return expected == COUNT

    async with Engine(database_url) as writer, Engine(database_url, executes=False) as other:
        readers = [asyncio.create_task(read(engine, n)) for n in range(100) for engine in (writer, other)]
        await asyncio.sleep(0)
        handle = await writer.start_async(flow.options(workflow_id="w"))
        assert await asyncio.gather(*readers) == [True] * 200
        await handle.result_async(PATIENCE)
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert rows(database_url, query)[0][0] < 25


def test_a_reader_in_another_process_keeps_up(
    start_program: StartProgram, engine: Engine, gate: Gate, gated: Any
) -> None:
    """It is notified of each value, and needs no poll: with a timeout far below the poll it never runs dry."""
    engine.start(gated.options(workflow_id="w"), 20)
    reader = start_program("reader", id="w", key="k", settings={"safety_poll": 600, "fast_poll": 600})
    for number in range(20):
        gate.open()
        assert reader.receive() == [number, number]
    assert reader.receive() == {"end": 20, "closed": True, "error": None}


def test_a_stream_is_readable_long_after_its_writer(database_url: str) -> None:
    """From a fresh process, as often as one likes."""
    with Engine(database_url) as engine:
        workflow_id = engine.start(writing_many, COUNT).workflow_id
        engine.handle(workflow_id).result(timeout=PATIENCE)
    for _ in range(2):
        with Engine(database_url, executes=False) as client:
            assert client.read_stream(workflow_id, "k").read_all() == (list(range(COUNT)), True)


def test_a_long_stream_of_small_and_large_blocks_is_read_in_pages(database_url: str) -> None:
    """More blocks, and more bytes, than one fetch carries."""
    values = [(number, "x" * (number % 50 == 0) * 60_000) for number in range(1500)]

    @workflow
    async def flow() -> None:
        for value in values:
            await write_stream_async("k", value)

    with Engine(database_url, block_values=2) as engine:
        workflow_id = engine.start(flow).workflow_id
        expected = [list(value) for value in values]
        assert engine.read_stream(workflow_id, "k").read_all() == (expected, True)
        assert engine.read_stream(workflow_id, "k", start=777).read_all() == (expected[777:], True)
        reader = engine.read_stream(workflow_id, "k", start=1400)
        assert [next(reader) for _ in range(100)] == expected[1400:]


def test_a_reader_can_be_left_at_any_time(engine: Engine, gate: Gate, gated: Any) -> None:
    """A reader that leaves early holds no other up, and may come back at the offset where it was."""
    workflow_id = engine.start(gated, 4).workflow_id
    gate.open(2)
    with engine.read_stream(workflow_id, "k", timeout=PATIENCE) as reader:
        assert next(reader) == 0
        offset = reader.offset

    async def main() -> None:
        async with engine.read_stream_async(workflow_id, "k", start=offset, timeout=PATIENCE) as channel:
            assert (await anext(channel)).value == 1
            waiting = asyncio.ensure_future(anext(channel))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            gate.open()
            assert (await anext(channel)).value == 2, "an interrupted wait loses nothing"

    asyncio.run(main())
    gate.open()
    assert engine.read_stream(workflow_id, "k", start=3).read_all() == ([3], True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "head"}, "start='head'"),
        ({"start": 1.5}, "start=1.5"),
        ({"until": -1}, "until=-1"),
        ({"view": "all"}, "view='all' must be one of 'live', 'committed', 'raw'"),
        ({"form": 0}, "no option 'form'"),
        ({"on_rollback": "retry"}, "on_rollback='retry'"),
    ],
)
def test_a_reader_with_senseless_options_is_refused(engine: Engine, options: Any, said: str) -> None:
    """Where it is asked for, with what it could be."""
    with pytest.raises(ConfigurationError, match=said):
        engine.read_stream("w", "k", **options)


def test_a_reader_that_is_over_leaves_nothing_behind(engine: Engine) -> None:
    """A hundred thousand reads later no subscription is left behind: what is forgotten can be read again."""
    workflow_id = engine.start(writing_many, 3).workflow_id
    for _ in range(50):
        assert engine.read_stream(workflow_id, "k").read_all() == ([0, 1, 2], True)
    eventually(lambda: engine.read_stream(workflow_id, "k", start=3).read_all() == ([], True))
