"""P3: what a workflow's body writes is in its stream exactly once, in program order, whatever crashed in between."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    close_stream,
    close_stream_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import ConfigurationError, StreamClosedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.programs import streaming
from tests.behaviour.tables import disorder, rows, stored_values
from tests.behaviour.worker_pool import QUEUE

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartPool, StartProgram

PATIENCE = 60.0
KILLS = 3


def listened(reader: Any) -> list[list[Any]]:
    """What a reader process has received by the end of the stream."""
    received: list[list[Any]] = []
    while isinstance(said := reader.receive(), list):
        received.append(said)
    return [*received, said]


@pytest.mark.parametrize("colour", ["streaming", "streaming_on_thread"])
def test_stream_values_are_written_once_over_kills(
    database_url: str, start_program: StartProgram, start_pool: StartPool, client: Engine, colour: str
) -> None:
    """Offsets are dense, each value stands once at its place; a reader that stayed connected saw exactly that."""
    reader = start_program("reader", id="w", key="values", wait_for=PATIENCE)
    pool = start_pool("streaming")
    flow: Any = getattr(streaming, colour)
    handle = client.start(flow.options(workflow_id="w", queue=QUEUE), 300)
    kills = pool.kill_during("w", kills=KILLS, every=50)
    results = handle.result(timeout=PATIENCE)
    assert kills
    assert [number for number, _ in results] == list(range(300))
    expected = [value for one in results for value in (one, f"{one[0]} again", f"{one[0]} once more")]
    assert stored_values(database_url, "w", "values") == list(enumerate(expected))
    assert stored_values(database_url, "w", "rare") == list(enumerate(range(0, 300, 7)))
    assert listened(reader) == [
        *([offset, value] for offset, value in enumerate(expected)),
        {"end": 900, "closed": True, "error": None},
    ]
    assert client.read_stream("w", "values").read_all() == (expected, True)
    assert disorder(database_url) == []


def test_several_producers_of_one_key_keep_their_own_orders_over_kills(
    database_url: str, start_pool: StartPool, client: Engine
) -> None:
    """Branches may share a key: each has its own count, so none loses or doubles a value when it is replayed."""
    pool = start_pool("streaming")
    spec = streaming.streaming_in_branches.options(workflow_id="w", queue=QUEUE)
    handle = client.start(spec, 60, 5)
    kills = pool.kill_during("w", kills=KILLS, every=12)
    handle.result(timeout=PATIENCE)
    assert kills
    values, closed = client.read_stream("w", "values").read_all()
    assert (len(values), closed) == (300, True)
    by_branch: dict[int, list[int]] = defaultdict(list)
    for branch, number in values:
        by_branch[branch].append(number)
    assert by_branch == {branch: list(range(60)) for branch in range(5)}
    for branch in range(5):
        assert client.read_stream("w", f"of branch {branch}").read_all() == (["last"], True)
    assert disorder(database_url) == []


def test_a_failing_workflow_streams_its_last_value_once_over_kills(
    database_url: str, start_pool: StartPool, client: Engine
) -> None:
    """The end comes behind the last value, and says how it ended, also after crashes."""
    pool = start_pool("streaming")
    handle = client.start(streaming.streaming_then_failing.options(workflow_id="w", queue=QUEUE), 300)
    pool.kill_during("w", kills=2, every=30)
    with pytest.raises(ValueError, match="that was all"):
        handle.result(timeout=PATIENCE)
    assert client.read_stream("w", "values").read_all() == (list(range(300)), True)
    assert disorder(database_url) == []


def test_writes_of_one_branch_are_in_program_order_over_all_keys(database_url: str, engine: Engine) -> None:
    """Each stream holds its own values in the order in which the program wrote them."""

    @workflow
    async def flow() -> None:
        for number in range(500):
            await write_stream_async(f"key {number % 3}", number)

    engine.run(flow.options(workflow_id="w"))
    for key in range(3):
        assert engine.read_stream("w", f"key {key}").read_all() == (list(range(key, 500, 3)), True)
    assert disorder(database_url) == []


def test_producers_that_take_turns_keep_arrival_order(engine: Engine) -> None:
    """Two branches that alternate on one key: readers see what happened in the order in which it did."""

    @workflow
    async def flow() -> None:
        turns = [asyncio.Event() for _ in range(20)]

        async def produce(first: int) -> None:
            for turn in range(first, 20, 2):
                if turn:
                    await turns[turn - 1].wait()
                await write_stream_async("k", turn)
                turns[turn].set()

        await asyncio.gather(produce(0), produce(1))

    handle = engine.start(flow)
    assert engine.read_stream(handle.workflow_id, "k").read_all() == (list(range(20)), True)


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_a_write_after_the_close_is_an_error_live_and_replayed(database_url: str, colour: str) -> None:
    """The close is final for its own workflow, too; and a replay takes the same ``except``."""
    passes: list[str] = []
    interruption = Interruption()

    @workflow
    async def on_loop() -> None:
        await write_stream_async("k", 1)
        await close_stream_async("k")
        await close_stream_async("k")  # does nothing
        with pytest.raises(StreamClosedError, match="'k'") as caught:
            await write_stream_async("k", 2)
        passes.append(str(caught.value))
        await write_stream_async("other", 3)
        await interruption.point_async()

    @workflow
    def on_thread() -> None:
        write_stream("k", 1)
        close_stream("k")
        close_stream("k")
        with pytest.raises(StreamClosedError, match="'k'") as caught:
            write_stream("k", 2)
        passes.append(str(caught.value))
        write_stream("other", 3)
        interruption.point()

    flow: Any = on_loop if colour == "async" else on_thread
    workflow_id = interruption.first_pass(database_url, flow)
    with Engine(database_url) as engine:
        engine.handle(workflow_id).result(timeout=PATIENCE)
        assert engine.read_stream(workflow_id, "k").read_all() == ([1], True)
        assert engine.read_stream(workflow_id, "other").read_all() == ([3], True)
    assert len(passes) == 2
    assert passes[0] == passes[1]
    assert disorder(database_url) == []


def test_a_branch_that_wrote_before_another_closed_replays_its_writes(database_url: str) -> None:
    """What is durable is skipped by count before the close is looked at, although a replay may know of it first."""
    interruption = Interruption()

    @workflow
    async def flow() -> list[str]:
        written, outcomes = asyncio.Event(), []

        async def writing() -> None:
            if interruption.over:  # timing differs between the passes, the program's order does not
                await asyncio.sleep(0)
            await write_stream_async("k", "written")
            written.set()

        async def closing() -> None:
            await written.wait()
            await close_stream_async("k")
            outcomes.append("closed")

        await asyncio.gather(closing(), writing())
        await interruption.point_async()
        return outcomes

    workflow_id = interruption.first_pass(database_url, flow)
    with Engine(database_url) as engine:
        assert engine.handle(workflow_id, flow).result(timeout=PATIENCE) == ["closed"]
        assert engine.read_stream(workflow_id, "k").read_all() == (["written"], True)


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_writes_inside_a_step_are_live_and_carry_their_attempt(
    database_url: str, engine: Engine, client: Engine, colour: str
) -> None:
    """A reader sees them while the step still runs; each row names the step and the attempt that wrote it."""

    @step
    async def telling() -> int:
        await write_stream_async("k", "from the step")
        async with client.read_stream_async("w", "k", timeout=PATIENCE) as channel:
            assert (await anext(channel)).value == "from the step"
        return 1

    @step
    def telling_on_thread() -> int:
        write_stream("k", "from the step")
        assert next(client.read_stream("w", "k", timeout=PATIENCE)) == "from the step"
        return 1

    @workflow
    async def on_loop() -> None:
        await telling()
        await write_stream_async("k", "from the body")

    @workflow
    def on_thread() -> None:
        telling_on_thread()
        write_stream("k", "from the body")

    engine.run((on_loop if colour == "async" else on_thread).options(workflow_id="w"))
    name = "telling" if colour == "async" else "telling_on_thread"
    query = 'SELECT producer, attempt FROM dbosflow.stream_block WHERE kind = %s ORDER BY "offset"'
    assert rows(database_url, query, "values") == [(f"{name}#0@1.1", "1.1"), ("", None)]
    assert engine.read_stream("w", "k").read_all() == (["from the step", "from the body"], True)


def test_each_attempt_of_a_step_writes_under_its_own_name(database_url: str, engine: Engine) -> None:
    """No two attempts can be taken for each other, also not over a change of owners."""
    attempts = iter(range(1, 4))

    @step(max_attempts=3, interval=0)
    async def trying() -> None:
        number = next(attempts)
        await write_stream_async("k", number)
        if number < 3:
            raise ConnectionError

    @workflow
    async def flow() -> None:
        await trying()

    engine.run(flow.options(workflow_id="w"))
    query = 'SELECT attempt, producer_seq FROM dbosflow.stream_block WHERE kind = %s ORDER BY "offset"'
    assert rows(database_url, query, "values") == [("1.1", 0), ("1.2", 0), ("1.3", 0)]


@pytest.mark.parametrize("key", ["", "x" * 513, "nul\0", "lone \ud800"])
def test_a_text_that_cannot_be_a_stream_key_is_refused(engine: Engine, key: str) -> None:
    """By the write and by the reader, with the reason."""

    @workflow
    async def flow() -> None:
        with pytest.raises(ConfigurationError, match="stream key"):
            await write_stream_async(key, 1)
        with pytest.raises(ConfigurationError, match="stream key"):
            await close_stream_async(key)

    engine.run(flow)
    with pytest.raises(ConfigurationError, match="stream key"):
        engine.read_stream("w", key)
