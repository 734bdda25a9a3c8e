"""A typed reader gets what it asks for, and an error at the first value not of its type: however that is stored."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    for_each,
    for_each_async,
    read_input,
    read_input_async,
    read_stream,
    read_stream_async,
    step,
    workflow,
    write_stream,
)
from dbosflow.errors import SerializationError, WorkflowBlockedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import rows
from tests.behaviour.test_queues import working
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 60.0
VALUES: list[Any] = [0, 1, 2, "drei", 4, {"v2": 5}, [6, 1e300], 7, 'a,]"[,é\ud800', 9]
"""What a stream holds whose writer has changed the type of its values, and changed it back."""
NUMBERS = [value if isinstance(value, int) else None for value in VALUES]


@workflow
def evolving() -> None:
    for value in VALUES:
        write_stream("k", value)


@pytest.fixture(params=["one by one", "at once", "compacted"])
def engine(database_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine whose database has a stream of such values, packed in one of the ways."""
    block_values = 512 if request.param == "at once" else 1
    with Engine(database_url, block_values=block_values, compact_every=None) as engine:
        engine.start(evolving.options(workflow_id="w")).result(PATIENCE)
        if request.param == "compacted":
            with Engine(database_url, compact_every=0.05):
                eventually(lambda: engine.streams.info("w", "k").blocks == 2, timeout=PATIENCE)
        yield engine


def taken(take: Callable[[], Any]) -> list[Any]:
    """What comes before the error, and the error's text; ``"end"`` without one."""
    found: list[Any] = []
    try:
        while True:
            found.append(take())
    except SerializationError as error:
        found.append(str(error).split(":")[0])
    except StopIteration:
        found.append("end")
    return found


def test_every_slice_of_a_typed_stream_depends_on_its_own_values_only(engine: Engine) -> None:
    """Of all beginnings and ends; what is outside of a slice need not be of the type."""
    for start in range(len(VALUES)):
        for until in range(start + 1, len(VALUES) + 1, 3):
            expected: list[Any] = []
            for offset in range(start, until):
                if NUMBERS[offset] is None:
                    expected.append(f"stream 'k' of workflow 'w' cannot be read at offset {offset}")
                    break
                expected.append(NUMBERS[offset])
            else:
                expected.append("end")
            reader = engine.read_stream("w", "k", start=start, until=until, type=int)
            assert taken(partial(next, reader)) == expected
    assert engine.read_stream("w", "k", start=2, until=9).read_all()[0] == VALUES[2:9]


def test_a_reader_stays_at_a_value_that_is_not_of_its_type(engine: Engine) -> None:
    """It says so as often as it is asked, and another one goes on from there."""
    reader = engine.read_stream("w", "k", type=int)
    assert [next(reader) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(SerializationError, match="at offset 3"):
            next(reader)
        assert (reader.offset, reader.closed) == (3, False)
    assert next(engine.read_stream("w", "k", start=reader.offset, type=str)) == "drei"

    async def main() -> list[Any]:
        channel = engine.read_stream_async("w", "k", start=8, type=str)
        return [(await channel.read()).value]

    assert asyncio.run(main()) == [VALUES[8]]


handled: list[int] = []


@workflow(inputs=["in"])
def handling() -> int:
    try:
        for_each(read_input("in", type=int), handled.append)
    except SerializationError:
        return len(handled)
    return -1


def test_a_loop_handles_what_comes_before_a_value_that_is_not_of_its_type(database_url: str) -> None:
    """Though all of them have come in one block: they are written on one loop, the client's own."""
    handled.clear()

    async def main() -> None:
        async with Engine(database_url, executes=False) as client:
            await client.start_async(handling.options(workflow_id="w", queue="later"))
            await asyncio.gather(*(client.write_stream_async("w", "in", value) for value in (0, 1, "two", 3)))

    asyncio.run(main())
    with Engine(database_url) as engine:
        assert rows(database_url, "SELECT count FROM dbosflow.stream_block") == [(4,)]
        with working(engine, "later"):
            assert engine.handle("w").result(PATIENCE) == 2
    assert handled == [0, 1]


def reading(begun: Interruption, *, sync: bool) -> Any:
    """A workflow that reads another one's stream, and whose code changes the type that it reads it with."""
    before, after = (int, str)

    def wanted() -> Any:
        return after if begun.over else before

    async def on_loop() -> list[Any]:
        channel = read_stream_async("w", "k", until=3, type=wanted())
        read = [item.value async for item in channel]
        await begun.point_async()
        return read

    def on_thread() -> list[Any]:
        read = list(read_stream("w", "k", until=3, type=wanted()))
        begun.point()
        return read

    body = on_thread if sync else on_loop
    body.__qualname__ = f"reading_as_another_type_{sync}"
    return workflow(body)


@pytest.mark.parametrize("sync", [True, False])
def test_recorded_values_that_no_longer_fit_their_type_block_the_workflow(database_url: str, sync: bool) -> None:  # noqa: FBT001
    """The values were of the type when they were read: so it is the code that has changed."""
    begun = Interruption()
    flow = reading(begun, sync=sync)
    with Engine(database_url) as engine:
        engine.run(evolving.options(workflow_id="w"))
    workflow_id = begun.first_pass(database_url, flow)
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match="at offset 0"):
        engine.handle(workflow_id, flow).result(timeout=PATIENCE)


def test_a_value_that_never_was_of_the_type_is_refused_again(database_url: str) -> None:
    """A body that has caught the error goes the same way in a replay, also if the type takes the value by then."""
    begun = Interruption()
    seen: list[list[Any]] = []

    async def body() -> list[Any]:
        read: list[Any] = []
        try:
            kind: Any = Any if begun.over else int
            async for item in read_stream_async("w", "k", type=kind):
                read.append(item.value)  # noqa: PERF401 (up to the error)
        except SerializationError as error:
            read.append(str(error))
        seen.append(read)
        await begun.point_async()
        return read

    body.__qualname__ = "reading_what_was_refused"
    flow = workflow(body)
    with Engine(database_url) as engine:
        engine.run(evolving.options(workflow_id="w"))
    result = begun.two_passes(database_url, flow)
    assert result[:3] == [0, 1, 2]
    assert "at offset 3" in result[3]
    assert seen == [result, result]


@pytest.mark.parametrize("how", ["has failed", "is done"])
def test_an_item_that_was_handled_and_no_longer_fits_blocks_the_workflow(
    database_url: str, client: Engine, how: str
) -> None:
    """It was of the type when its handler got it: so it is the code that has changed."""
    begun = Interruption()
    done: list[Any] = []

    @step(max_attempts=9, interval=0)
    async def handler(value: Any) -> None:
        done.append(value)
        if value == "one" and how == "has failed" and done.count(value) == 1:
            raise ValueError
        if value == (0 if how == "is done" else "one"):
            await begun.point_async()

    async def body() -> int:
        kind: Any = int if begun.over else Any
        items = read_input_async("in", type=kind, until=2)
        processed = await for_each_async(items, handler, concurrency=2, ordered=False)
        return int(processed.count)

    body.__qualname__ = f"handling_what_{how}"
    flow = workflow(inputs=["in"])(body)
    with Engine(database_url, grace=0) as engine:
        workflow_id = engine.start(flow).workflow_id
        for value in (0, "one"):
            client.write_stream(workflow_id, "in", value)
        assert begun.reached()
        assert eventually(lambda: len(engine.list_steps(workflow_id)) > 0)
    begun.let_through()
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match="item 1 of loop 'handler#0'"):
        engine.handle(workflow_id, flow).result(timeout=PATIENCE)
