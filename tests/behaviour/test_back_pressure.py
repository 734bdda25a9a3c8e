"""A writer that is faster than the database waits for it: what is buffered has a bound, whichever colour it has."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, step, workflow, write_stream, write_stream_async
from tests.behaviour.tables import disorder
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
BUFFER = 100_000
VALUE = "x" * 1000
COUNT = 2000
SLACK = 10
"""Values of several branches that were on their way when the buffer was full, for each branch."""

written: dict[str, int] = {}


def count_write(workflow_id: str) -> None:
    written[workflow_id] = written.get(workflow_id, 0) + 1


@step
async def writing_step() -> None:
    for _ in range(COUNT):
        await write_stream_async("k", VALUE)
        count_write("step")


@step
def writing_step_on_thread() -> None:
    for _ in range(COUNT):
        write_stream("k", VALUE)
        count_write("sync step")


@workflow
async def fast_body() -> None:
    for _ in range(COUNT):
        await write_stream_async("k", VALUE)
        count_write("body")


@workflow
def fast_body_on_thread() -> None:
    for _ in range(COUNT):
        write_stream("k", VALUE)
        count_write("sync body")


@workflow
async def fast_branches() -> None:
    async def branch() -> None:
        for _ in range(COUNT // 4):
            await write_stream_async("k", VALUE)
            count_write("branches")

    await asyncio.gather(*(branch() for _ in range(4)))


@workflow
async def fast_step() -> None:
    await writing_step()


@workflow
async def fast_step_on_pool() -> None:
    await writing_step_on_thread.run_async()


FLOWS: dict[str, Any] = {
    "body": fast_body,
    "sync body": fast_body_on_thread,
    "branches": fast_branches,
    "step": fast_step,
    "sync step": fast_step_on_pool,
}


@contextmanager
def stuck(url: str) -> Iterator[None]:
    """The database takes no stream block during the block."""
    with psycopg.connect(url, application_name="stuck") as connection:
        connection.execute("LOCK TABLE dbosflow.stream_block IN SHARE ROW EXCLUSIVE MODE")
        yield
        connection.rollback()


def halted(which: str) -> int:
    """How many values were written when the writer had not written any for a while."""
    seen = [(-1, 0.0)]

    def halt() -> bool:
        count, now = written.get(which, 0), time.monotonic()
        if count != seen[-1][0]:
            seen.append((count, now))
        return count > 0 and now - seen[-1][1] > 0.3

    eventually(halt, timeout=PATIENCE)
    return written[which]


@pytest.mark.parametrize("which", FLOWS)
def test_a_writer_that_is_faster_than_the_database_is_held_back(database_url: str, which: str) -> None:
    """It stops at its bound while the database is stuck, goes on when that goes on, and nothing is lost meanwhile."""
    written.pop(which, None)
    with Engine(database_url, buffer_bytes=BUFFER, lease=30) as engine:
        with stuck(database_url):
            handle = engine.start(FLOWS[which].options(workflow_id="w"))
            # Each of four branches yields control, after so many values that the place does not depend on timing.
            slack = 4 * 64 if which == "branches" else SLACK
            assert halted(which) <= BUFFER // len(VALUE) + slack < COUNT // 4
        handle.result(timeout=PATIENCE)
        assert written[which] == COUNT
        values, closed = engine.read_stream("w", "k").read_all()
        assert closed
        assert values == [VALUE] * COUNT
    assert disorder(database_url) == []


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_a_value_larger_than_the_buffer_is_written_all_the_same(database_url: str, colour: str) -> None:
    """The buffer bounds what waits behind a value, not the size of one."""
    large = "y" * (3 * BUFFER)

    @workflow
    async def on_loop() -> None:
        for _ in range(3):
            await write_stream_async("k", large)

    @workflow
    def on_thread() -> None:
        for _ in range(3):
            write_stream("k", large)

    with Engine(database_url, buffer_bytes=BUFFER, batch_bytes=1000, block_bytes=1000) as engine:
        workflow_id = engine.start(on_loop if colour == "async" else on_thread).workflow_id
        assert engine.read_stream(workflow_id, "k", timeout=PATIENCE).read_all() == ([large] * 3, True)


@pytest.mark.parametrize("which", ["body", "sync body"])
def test_a_writer_that_waits_for_room_stops_with_its_engine(database_url: str, which: str) -> None:
    """An engine that closes is not held up by its own back-pressure; what was not written, the next one writes."""
    written.pop(which, None)
    with ExitStack() as database:
        database.enter_context(stuck(database_url))
        engine = Engine(database_url, buffer_bytes=BUFFER, grace=0).open()
        engine.start(FLOWS[which].options(workflow_id="w"))
        halted(which)
        engine.close()
    with Engine(database_url) as engine:
        engine.handle("w").result(timeout=PATIENCE)
        values, closed = engine.read_stream("w", "k", timeout=PATIENCE).read_all()
        assert closed
        assert len(values) == COUNT
    assert disorder(database_url) == []


def test_one_hot_writer_does_not_starve_the_others(engine: Engine) -> None:
    """A body that writes and never waits still lets the loop go on."""

    @workflow
    async def patient() -> str:
        for _ in range(20):
            await asyncio.sleep(0)
        return "done"

    hot = engine.start(fast_body)
    assert engine.start(patient).result(timeout=PATIENCE) == "done"
    hot.result(timeout=PATIENCE)
