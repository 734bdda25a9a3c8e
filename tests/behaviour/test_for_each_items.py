"""What becomes of single items of a durable loop: none is lost, whatever it is and whatever fails beside it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Stream, for_each_async, read_input_async, sleep_async, workflow
from dbosflow.errors import SerializationError, StreamClosedError, StreamFullError, WorkflowBlockedError
from dbosflow.testing import crash_at
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

PATIENCE = 60.0
numbers = Stream[int, None]("numbers")
anything: Stream[Any, None] = Stream("numbers")


def write(engine: Engine, workflow_id: str, values: Iterable[Any]) -> None:
    """Writes all values, and the end; what the loop is too fast for is not written."""
    with suppress(StreamClosedError):
        for value in values:
            engine.write_stream(workflow_id, "numbers", value)
        engine.close_stream(workflow_id, "numbers")


# -- items that are not of the type ------------------------------------------------------------------------------------

handled: list[Any] = []


@workflow(inputs=[numbers])
async def counting_numbers(on_error: Any, concurrency: int, ordered: bool) -> list[Any]:  # noqa: FBT001
    async def count_one(number: int) -> int:
        handled.append(number)
        return number

    done = await for_each_async(
        numbers, count_one, on_error=on_error, concurrency=concurrency, ordered=ordered, collect=True
    )
    return [done.count, done.failed, done.last, done.results]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_an_item_of_another_type_fails_alone(
    database_url: str,
    on_error: str,
    concurrency: int,
    ordered: bool,  # noqa: FBT001
) -> None:
    """Like one whose handler fails; its dead letter holds it as it was written, and each of the others is handled."""
    handled.clear()
    with Engine(database_url) as engine:
        handle = engine.start(counting_numbers.options(workflow_id="w"), on_error, concurrency, ordered)
        write(engine, "w", [0, "one", 2, {"three": 3.0}, [4], 5])
        assert handle.result(timeout=PATIENCE) == [3, 3, 5, [0, 2, 5]]
        assert sorted(handled) == [0, 2, 5]
        errors = {step.key: step.error for step in engine.list_steps("w") if step.error is not None}
        assert sorted(errors) == ["count_one#0/1", "count_one#0/3", "count_one#0/4"]
        if on_error == "dead_letter":
            letters, complete = engine.read_stream("w", "count_one.dead").read_all()
            assert complete
            assert sorted((letter["offset"], letter["value"]) for letter in letters) == [
                (1, "one"),
                (3, {"three": 3.0}),
                (4, [4]),
            ]
            assert {letter["error"]["type"] for letter in letters} == {"SerializationError"}
    assert disorder(database_url) == []


def test_an_item_of_another_type_still_ends_a_loop_that_raises(database_url: str) -> None:
    with Engine(database_url) as engine:
        handle = engine.start(counting_numbers.options(workflow_id="w"), "raise", 2, True)
        write(engine, "w", [0, "one", 2])
        with pytest.raises(SerializationError, match="offset 1"):
            handle.result(timeout=PATIENCE)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_repeats_no_item_of_another_type(database_url: str, when: Any) -> None:
    """Its record says that it was refused: no other code is suspected of having handled it."""
    with Engine(database_url) as engine:
        handle = engine.start(counting_numbers.options(workflow_id="w"), "dead_letter", 3, False)
        with crash_at(engine, "w", "count_one#0/1", when=when):
            write(engine, "w", [0, "one", 2])
            assert handle.result(timeout=PATIENCE) == [2, 1, 2, [0, 2]]
        letters = engine.read_stream("w", "count_one.dead").read_all()[0]
        assert [letter["offset"] for letter in letters] == [1]
    assert disorder(database_url) == []


def test_an_item_that_was_handled_and_is_of_the_type_no_more_blocks(database_url: str) -> None:
    """Also a loop that goes on past failures: that was another type."""
    begun = Interruption()
    waiting = asyncio.Event()

    @workflow(inputs=[anything])
    async def with_other_types() -> Any:
        async def take_any(value: Any) -> None:
            if value == "first":
                waiting.set()
                await begun.point_async()

        async def take_int(value: int) -> None: ...

        take_int.__qualname__ = take_any.__qualname__
        source = read_input_async(numbers) if begun.over else read_input_async(anything)
        function = take_int if begun.over else take_any
        done = await for_each_async(source, function, name="take", concurrency=2, ordered=False, on_error="skip")
        return done.count

    with Engine(database_url, grace=0.0) as engine:
        handle = engine.start(with_other_types)
        write(engine, handle.workflow_id, ["first", "second"])
        assert begun.reached()
        eventually(lambda: rows(database_url, "SELECT FROM dbosflow.step WHERE loop_offset = 1"))
    begun.let_through()
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match="takes item 1 of loop 'take#0'"):
        engine.handle(handle.workflow_id, with_other_types).result(timeout=PATIENCE)


# -- items beside one that fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_that_ends_its_loop_is_not_done(database_url: str, ordered: bool) -> None:  # noqa: FBT001
    """One beside it gets on record after it: a crash before the loop's end must not go on behind both."""
    waiting: list[asyncio.Event] = []
    seen: list[int] = []

    @workflow(inputs=[numbers])
    async def failing_once(ordered: bool) -> list[Any]:  # noqa: FBT001
        async def fail_first(number: int) -> None:
            seen.append(number)
            if len(seen) == 1:
                waiting.append(asyncio.Event())
            elif len(seen) == 2:
                asyncio.get_running_loop().call_soon(waiting[0].set)  # both go on in one turn of the loop
            await waiting[0].wait()
            if len(seen) <= 2 and number == 0:
                raise ValueError(number)

        done = await for_each_async(numbers, fail_first, concurrency=2, ordered=ordered)
        return [done.count, done.failed, done.last]

    with Engine(database_url) as engine, crash_at(engine, "w", "fail_first#0", when="before"):
        handle = engine.start(failing_once.options(workflow_id="w"), ordered)
        write(engine, "w", [0, 1])
        assert handle.result(timeout=PATIENCE) == [2, 0, 1]
    assert seen.count(0) == 2
    assert disorder(database_url) == []


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_whose_dead_letter_is_refused_is_not_done(database_url: str, ordered: bool) -> None:  # noqa: FBT001
    """A reader goes on with it, and nothing begins behind it meanwhile."""

    @workflow(inputs=[numbers])
    async def with_full_letters(ordered: bool) -> list[Any]:  # noqa: FBT001
        async def refuse(number: int) -> None:
            if number < 4:
                raise ValueError(number)

        reader = read_input_async(numbers)
        with pytest.raises(StreamFullError):
            await for_each_async(reader, refuse, on_error="dead_letter", ordered=ordered)
        done = await for_each_async(reader, refuse, on_error="skip", ordered=ordered)
        return [done.count, done.failed, done.last]

    with Engine(database_url, stream_values=2) as engine:
        handle = engine.start(with_full_letters.options(workflow_id="w"), ordered)
        with Engine(database_url) as writer:
            write(writer, "w", range(6))
        assert handle.result(timeout=PATIENCE) == [2, 2, 5]
    assert disorder(database_url) == []


def test_items_that_were_not_recorded_hold_no_closing_engine_up(database_url: str) -> None:
    """They were done behind one that has ended the loop: nothing of them is under way."""
    fail = asyncio.Event()

    @workflow(inputs=[numbers])
    async def ending_early() -> None:
        async def fail_late(number: int) -> None:
            if number == 0:
                await fail.wait()
                raise ValueError(number)
            if number == 2:
                asyncio.get_running_loop().call_later(0.01, fail.set)  # the others have ended by then

        with suppress(ValueError):
            await for_each_async(numbers, fail_late, concurrency=3)
        await sleep_async(3600)

    engine = Engine(database_url, grace=PATIENCE)
    with engine:
        handle = engine.start(ending_early)
        write(engine, handle.workflow_id, range(3))
        eventually(lambda: [step for step in engine.list_steps(handle.workflow_id) if step.kind == "sleep"])
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE / 2


def test_a_dead_letter_holds_the_item_as_it_was_written(database_url: str) -> None:
    """Whatever the handler has done to it."""

    @workflow(inputs=[anything])
    async def changing_items() -> Any:
        async def spoil(item: Any) -> None:
            item.clear()
            raise ValueError

        return (await for_each_async(anything, spoil, on_error="dead_letter")).failed

    with Engine(database_url) as engine:
        handle = engine.start(changing_items.options(workflow_id="w"))
        write(engine, "w", [{"a": [1.50, "é"]}])
        assert handle.result(timeout=PATIENCE) == 1
        (letter,) = engine.read_stream("w", "spoil.dead").read_all()[0]
        assert letter["value"] == {"a": [1.5, "é"]}
