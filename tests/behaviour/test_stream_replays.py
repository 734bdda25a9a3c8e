"""What a body learns of its own streams is what it learned live: in a replay more may be there, or less."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Stream, close_stream_async, for_each_async, step, workflow, write_stream_async
from dbosflow.errors import StreamClosedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, records, stored_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.gate import Gate

PATIENCE = 60.0
lines: Stream[int, None] = Stream[int, None]("k")


@step
async def note() -> None:
    """Makes durable what was written before it."""


async def alone() -> list[list[int]]:
    writer = lines.writer()
    seen = [await writer.emitted_async()]
    for number in range(3):
        await writer.write_async(number)
        seen.append(await writer.emitted_async())
    await writer.write_async(3)
    await note()
    return seen


async def among_branches() -> list[list[list[int]]]:
    return list(await asyncio.gather(alone(), alone()))


def on_a_thread() -> list[list[int]]:
    writer = lines.writer()
    seen = [writer.emitted()]
    for number in range(3):
        writer.write(number)
        seen.append(writer.emitted())
    writer.write(3)
    note.run()
    return seen


SEEN = [[], [0], [0, 1], [0, 1, 2]]


@pytest.mark.parametrize(("part", "expected"), [(alone, SEEN), (among_branches, [SEEN, SEEN]), (on_a_thread, SEEN)])
def test_emitted_is_what_was_written_by_then(database_url: str, part: Callable[[], Any], expected: Any) -> None:
    """In a replay all of it is durable from the beginning on."""
    begun = Interruption()
    passes: list[Any] = []

    async def on_loop() -> Any:
        passes.append(await part())
        await begun.point_async()
        return passes[-1]

    def on_thread() -> Any:
        passes.append(part())
        begun.point()
        return passes[-1]

    body = on_thread if part is on_a_thread else on_loop
    body.__qualname__ = f"emitting_{part.__name__}"
    assert begun.two_passes(database_url, workflow(body)) == expected
    assert passes == [expected, expected]
    assert disorder(database_url) == []


def test_a_write_that_a_step_s_close_has_refused_is_refused_again(database_url: str) -> None:
    """The step runs again, and closes the stream later this time, if at all: the refusal is on record."""
    begun = Interruption()
    closed, refused = asyncio.Event(), []

    @step
    async def closing() -> None:
        if not begun.over:
            await close_stream_async("k")
            closed.set()
        await begun.point_async()

    async def writing() -> str:
        if not begun.over:
            await closed.wait()
        try:
            await write_stream_async("k", "refused")
        except StreamClosedError as error:
            refused.append(str(error))
        await write_stream_async("other", "behind it")
        await note()
        return "refused" if refused else "written"

    async def body() -> str:
        _, result = await asyncio.gather(closing(), writing())
        return str(result)

    body.__qualname__ = "writing_where_a_step_closes"
    flow = workflow(body)
    with Engine(database_url, grace=0) as engine:
        workflow_id = engine.start(flow).workflow_id
        assert begun.reached()
        reader = engine.read_stream(workflow_id, "other", timeout=PATIENCE)
        assert next(reader) == "behind it"
    begun.let_through()
    refused_live = list(refused)
    refused.clear()
    with Engine(database_url) as engine:
        assert engine.handle(workflow_id, flow).result(timeout=PATIENCE) == "refused"
    assert refused == refused_live
    assert stored_values(database_url, workflow_id, "k") == []
    assert [kind for _, kind in records(database_url, workflow_id)].count("refused") == 1
    assert disorder(database_url) == []


class TornError(Exception):
    """What a handler ends with."""


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
def test_the_end_of_a_loop_decides_what_its_items_wrote(
    database_url: str, client: Engine, gate: Gate, how: str
) -> None:
    """At once: a committed reader goes on, though the workflow does not end."""
    written = asyncio.Event()

    @step
    async def handler(number: int) -> None:
        await write_stream_async("k", f"of item {number}")
        if number == 1:
            await lines_are_durable()
            written.set()
        if number == 0 and how != "is cancelled":
            await written.wait()
            raise TornError
        await asyncio.get_running_loop().create_future()

    async def lines_are_durable() -> None:
        await Stream[str, None]("k").writer().flush_async()

    async def looping() -> None:
        loop = asyncio.ensure_future(for_each_async("in", handler, concurrency=2))
        if how == "is cancelled":
            await written.wait()
            loop.cancel()
        await asyncio.wait([loop])
        assert loop.cancelled() if how == "is cancelled" else isinstance(loop.exception(), TornError)

    async def body() -> str:
        await looping()
        await write_stream_async("k", "behind it")
        await gate.passed()
        return "done"

    body.__qualname__ = f"looping_that_{how}"
    flow = workflow(inputs=["in"])(body)
    with Engine(database_url) as engine:
        handle = engine.start(flow)
        for number in range(2):
            client.write_stream(handle.workflow_id, "in", number)
        reader = client.read_stream(handle.workflow_id, "k", view="committed", timeout=PATIENCE)
        assert next(reader) == "behind it"
        gate.open()
        assert handle.result(timeout=PATIENCE) == "done"
    assert disorder(database_url) == []
