"""Readers follow a stream live or long afterwards, from any offset, as many as there are, each at its own pace."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, workflow, write_stream_async
from dbosflow.errors import (
    ConfigurationError,
    EngineClosedError,
    StreamTimeoutError,
    WorkflowNotFoundError,
)
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.conftest import StartProgram

PATIENCE = 30.0
COUNT = 1000


class Gate:
    """Lets a workflow's body go on, one write after the other, from any thread."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)

    def open(self, times: int = 1) -> None:
        self._permits.release(times)

    async def passed(self) -> None:
        while not self._permits.acquire(blocking=False):  # noqa: ASYNC110 (opened from other threads)
            await asyncio.sleep(0.001)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(gate: Gate) -> Any:
    """A workflow that writes a number whenever it is let."""

    async def writing_when_let(count: int) -> None:
        for number in range(count):
            await gate.passed()
            await write_stream_async("k", number)

    return workflow(writing_when_let)


@workflow
async def writing_many(count: int) -> None:
    for number in range(count):
        await write_stream_async("k", number)


def test_a_value_is_there_before_the_workflow_goes_on(engine: Engine, gate: Gate, gated: Any) -> None:
    """Reading is live: each value arrives while the writer waits for leave to write the next."""
    with engine.read_stream(engine.start(gated, 5).workflow_id, "k", timeout=PATIENCE) as reader:
        for number in range(5):
            gate.open()
            assert next(reader) == number
            assert reader.offset == number + 1
        with pytest.raises(StopIteration):
            next(reader)
        assert reader.closed


def test_reading_starts_anywhere(database_url: str, engine: Engine, client: Engine) -> None:
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


def test_a_timeout_leaves_the_reader_usable(engine: Engine, gate: Gate, gated: Any) -> None:
    """It counts seconds without news, not since the start, and says which stream; reading goes on after it."""
    workflow_id = engine.start(gated, 3).workflow_id
    reader = engine.read_stream(workflow_id, "k", timeout=0.2)
    for number in range(3):
        began = time.monotonic()
        with pytest.raises(StreamTimeoutError, match=f"'k' of workflow '{workflow_id}'") as caught:
            next(reader)
        assert time.monotonic() - began >= 0.2
        assert isinstance(caught.value, TimeoutError)
        gate.open()
        assert next(reader) == number
    assert reader.read_all() == ([], True)

    async def main() -> None:
        other = await engine.start_async(gated, 2)
        channel = engine.read_stream_async(other.workflow_id, "k", timeout=0.2)
        for number in range(2):
            with pytest.raises(StreamTimeoutError):
                await anext(channel)
            gate.open()
            assert (await anext(channel)).value == number
        assert (await anext(channel)).closed

    asyncio.run(main())


def test_an_unknown_workflow_is_not_found(engine: Engine) -> None:
    """At once, or after ``wait_for`` seconds; asking again looks again."""
    reader = engine.read_stream("later", "k")
    for _ in range(2):
        with pytest.raises(WorkflowNotFoundError, match="later"):
            next(reader)
    began = time.monotonic()
    with pytest.raises(WorkflowNotFoundError, match=r"0\.3 s"):
        engine.read_stream("later", "k", wait_for=0.3).read_all()
    assert time.monotonic() - began >= 0.3
    engine.run(writing_many.options(workflow_id="later"), 2)
    assert reader.read_all() == ([0, 1], True)


@pytest.mark.parametrize("starter", ["engine", "client"])
def test_a_reader_may_be_there_before_its_workflow(
    request: pytest.FixtureRequest, engine: Engine, client: Engine, starter: str
) -> None:
    """``wait_for``: it is told of the start, in this process and in others, also of one that is only enqueued."""
    found: dict[str, Any] = {}

    def read(name: str, one: Engine) -> None:
        found[name] = one.read_stream("w", "k", wait_for=PATIENCE).read_all()

    threads = [threading.Thread(target=read, args=pair) for pair in (("engine", engine), ("client", client))]
    for thread in threads:
        thread.start()
    starting: Engine = request.getfixturevalue(starter)
    working = threading.Thread(target=engine.run_worker)
    if starter == "client":
        working.start()
    starting.start(writing_many.options(workflow_id="w"), 3)
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {"engine": ([0, 1, 2], True), "client": ([0, 1, 2], True)}
    engine.close()
    if starter == "client":
        working.join(PATIENCE)


def test_two_readers_of_one_stream_have_a_place_of_their_own(engine: Engine) -> None:
    """Neither takes anything from the other."""
    workflow_id = engine.start(writing_many, 10).workflow_id
    one, other = engine.read_stream(workflow_id, "k"), engine.read_stream(workflow_id, "k")
    assert [next(one) for _ in range(4)] == [0, 1, 2, 3]
    assert [next(other) for _ in range(2)] == [0, 1]
    assert next(one) == 4
    assert other.read_all() == (list(range(2, 10)), True)
    assert one.read_all() == (list(range(5, 10)), True)


def test_two_hundred_readers_of_one_stream_while_it_is_written(database_url: str) -> None:
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

    async def main() -> None:
        async with Engine(database_url) as writer, Engine(database_url, executes=False) as other:
            readers = [asyncio.create_task(read(engine, n)) for n in range(100) for engine in (writer, other)]
            await asyncio.sleep(0)
            handle = await writer.start_async(flow.options(workflow_id="w"))
            assert await asyncio.gather(*readers) == [True] * 200
            await handle.result_async(PATIENCE)
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            assert rows(database_url, query)[0][0] < 25

    asyncio.run(main())


def test_a_reader_in_another_process_keeps_up(
    start_program: StartProgram, engine: Engine, gate: Gate, gated: Any
) -> None:
    """It is told of each value, and needs no poll: with a timeout far below the poll it never runs dry."""
    engine.start(gated.options(workflow_id="w"), 20)
    reader = start_program("reader", id="w", key="k", settings={"safety_poll": 600, "fast_poll": 600})
    for number in range(20):
        gate.open()
        assert reader.hear() == [number, number]
    assert reader.hear() == {"end": 20, "closed": True, "error": None}


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
    """Whoever leaves early holds nobody up, and may come back at the offset where he was."""
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


WAITS: dict[str, Callable[[Engine, str], Any]] = {
    "reader": lambda engine, workflow_id: next(engine.read_stream(workflow_id, "k")),
    "result": lambda engine, workflow_id: engine.handle(workflow_id).result(),
}


@pytest.mark.parametrize("executes", [True, False])
@pytest.mark.parametrize("wait", WAITS)
def test_closing_the_engine_ends_the_waits_on_it(database_url: str, gated: Any, *, wait: str, executes: bool) -> None:
    """Nobody hangs on an engine that is gone: he hears that it is."""
    raised: list[BaseException] = []

    def block(engine: Engine) -> None:
        try:
            WAITS[wait](engine, "w")
        except BaseException as error:  # noqa: BLE001 (whatever it is)
            raised.append(error)

    with Engine(database_url, grace=0) as owner, Engine(database_url, executes=executes, grace=0) as engine:
        owner.start(gated.options(workflow_id="w"), 1)
        thread = threading.Thread(target=block, args=(engine,), daemon=True)
        thread.start()
        time.sleep(0.1)
        engine.close()
        thread.join(10)
        assert not thread.is_alive()
    assert [type(error) for error in raised] == [EngineClosedError]


def test_an_awaitable_wait_ends_with_the_engine(database_url: str, gated: Any) -> None:
    """The same on the caller's own loop, where nothing else would end it."""

    async def main() -> list[BaseException | Any]:
        async with Engine(database_url, grace=0) as owner:
            await owner.start_async(gated.options(workflow_id="w"), 1)
            engine = await Engine(database_url, executes=False).open_async()
            waits = [
                asyncio.ensure_future(anext(engine.read_stream_async("w", "k"))),
                asyncio.ensure_future(engine.handle("w").result_async()),
                asyncio.ensure_future(owner.handle("w").result_async()),
            ]
            await asyncio.sleep(0.1)
            await engine.close_async()
        return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 10)

    assert [type(error) for error in asyncio.run(main())] == [EngineClosedError] * 3


def test_an_offset_that_is_none_is_refused(engine: Engine) -> None:
    """Where it is asked for."""
    with pytest.raises(ConfigurationError, match="start=-1"):
        engine.read_stream("w", "k", start=-1)


def test_nothing_is_left_of_a_reader(engine: Engine) -> None:
    """A hundred thousand reads later no subscription is left behind: what is forgotten can be read again."""
    workflow_id = engine.start(writing_many, 3).workflow_id
    for _ in range(50):
        assert engine.read_stream(workflow_id, "k").read_all() == ([0, 1, 2], True)
    eventually(lambda: engine.read_stream(workflow_id, "k", start=3).read_all() == ([], True))
