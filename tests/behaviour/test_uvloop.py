"""Another event loop, faster than asyncio's own: everything is as on that one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest
import uvloop

from dbosflow import Engine, sleep_async, step, workflow, write_stream, write_stream_async
from dbosflow.errors import EngineClosedError

DOUBLED = [2 * number for number in range(20)]


@step
async def doubled(number: int) -> int:
    return 2 * number


@step
def write_words(words: list[str]) -> None:
    for word in words:
        write_stream("words", word)


@workflow
async def everything(size: int) -> list[int]:
    """Branches with outcomes in turns, a sync step on a thread, a sleep that is cancelled, streams."""
    numbers = await asyncio.gather(*(doubled(number) for number in range(size)))
    await write_words.run_async(["a", "b"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await sleep_async(600)
    for number in numbers:
        await write_stream_async("numbers", number)
    return numbers


@workflow
def everything_on_thread(size: int) -> list[int]:
    """The same as the child of a sync workflow."""
    return everything.run(size)


def cut_all(url: str) -> None:
    """Ends every session but this one, as a restart of the server does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("flow", [everything, everything_on_thread], ids=["async", "sync"])
def test_an_engine_works_on_the_callers_uvloop(database_url: str, flow: Any) -> None:
    """Steps, branches, threads, timeouts, streams, another process's result; and what is cut heals."""

    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        async with Engine(database_url) as engine, Engine(database_url, executes=False) as client:
            for is_first in (True, False):
                handle = await engine.start_async(flow, 20)
                if is_first:
                    await asyncio.to_thread(cut_all, database_url)
                assert await client.handle(handle.workflow_id).result_async(30) == DOUBLED
            owner = next(info.id for info in await engine.list_workflows_async() if info.name == "everything")
            reader = client.read_stream_async(owner, "numbers", timeout=60)
            assert [item.value async for item in reader if not item.closed] == DOUBLED

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_an_engine_is_hosted_on_a_loop_of_the_callers_making(database_url: str) -> None:
    """``with`` runs it in a thread; workflows are on that loop."""
    seen: list[object] = []

    @workflow(name="uvloop_looks_around")
    async def looks_around() -> None:
        seen.append(type(asyncio.get_running_loop()))

    with Engine(database_url, loop_factory=uvloop.new_event_loop) as engine:
        engine.run(looks_around)
        assert engine.run(everything, 20) == DOUBLED
    assert seen == [uvloop.Loop]


def test_a_loop_that_cannot_be_made_is_the_callers_error_and_leaves_nothing(database_url: str) -> None:
    """No thread, and an engine that may be opened again."""
    failing = True

    def factory() -> asyncio.AbstractEventLoop:
        if failing:
            msg = "no loop today"
            raise ValueError(msg)
        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return made

    threads = set(threading.enumerate())
    engine = Engine(database_url, loop_factory=factory)
    with pytest.raises(ValueError, match="no loop today"):
        engine.open()
    assert set(threading.enumerate()) <= threads
    with pytest.raises(EngineClosedError):
        engine.run(everything, 1)
    failing = False
    with engine:
        assert engine.run(everything, 20) == DOUBLED
