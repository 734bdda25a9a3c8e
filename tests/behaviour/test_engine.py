"""One engine, every way to hold it: blocking or awaitable, on a thread of its own or on the caller's loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus, step, workflow, write_stream, write_stream_async
from dbosflow.errors import BlockingCallError, ConfigurationError, EngineClosedError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


@step
async def doubled(number: int) -> int:
    return number * 2


@step
def doubled_on_thread(number: int) -> int:
    return number * 2


@workflow
async def doubling(number: int) -> int:
    result = await doubled(number)
    await write_stream_async("results", result)
    return result


@workflow
def doubling_on_thread(number: int) -> int:
    result = doubled_on_thread(number)
    write_stream("results", result)
    return result


BOTH_COLOURS = pytest.mark.parametrize("flow", [doubling, doubling_on_thread], ids=["async", "sync"])


@BOTH_COLOURS
def test_a_blocking_engine_runs_both_colours(database_url: str, flow: Any) -> None:
    """``with`` needs no loop: start, result, status and streams are plain calls, whatever colour the workflow has."""
    with Engine(database_url) as engine:
        handle = engine.start(flow, 21)
        assert handle.result(timeout=PATIENCE) == 42
        assert handle.status() is WorkflowStatus.SUCCEEDED
        assert engine.read_stream(handle.workflow_id, "results").read_all() == ([42], True)
        assert engine.run(flow, 4) == 8


@BOTH_COLOURS
async def test_an_awaitable_engine_runs_both_colours(database_url: str, flow: Any) -> None:
    """``async with`` runs on the caller's loop, and awaits both colours."""
    async with Engine(database_url) as engine:
        handle = await engine.start_async(flow, 21)
        assert await handle.result_async(timeout=PATIENCE) == 42
        assert await handle.status_async() is WorkflowStatus.SUCCEEDED
        items = [item async for item in engine.read_stream_async(handle.workflow_id, "results")]
        assert [(item.value, item.offset, item.closed) for item in items] == [(42, 0, False), (None, 1, True)]
        assert await engine.run_async(flow, 4) == 8


def test_an_engine_on_a_thread_is_awaited_from_another_loop(engine: Engine) -> None:
    """``x_async`` may be awaited on any loop, also when the engine was opened by ``with``."""

    async def main() -> list[Any]:
        handle = await engine.start_async(doubling, 1)
        values = [item.value async for item in engine.read_stream_async(handle.workflow_id, "results")]
        return [await handle.result_async(), await engine.run_async(doubling_on_thread, 2), values]

    assert asyncio.run(main()) == [2, 4, [2, None]]
    assert asyncio.run(main()) == [2, 4, [2, None]]  # and from one more loop


async def test_an_engine_on_the_callers_loop_is_called_from_threads(database_url: str) -> None:
    """Blocking calls work from any thread that has no running loop, however the engine was opened."""
    async with Engine(database_url) as engine:
        assert await asyncio.to_thread(engine.run, doubling, 21) == 42
        handle = await engine.start_async(doubling, 5)
        read = await asyncio.to_thread(lambda: engine.read_stream(handle.workflow_id, "results").read_all())
        assert read == ([10], True)


def test_many_threads_share_an_engine(engine: Engine) -> None:
    """An engine is safe to use from many threads at once."""
    results: dict[int, int] = {}

    def use(number: int) -> None:
        results[number] = engine.run(doubling, number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == {number: 2 * number for number in range(16)}


BLOCKING: dict[str, Callable[[Engine], object]] = {
    "start_async": lambda engine: engine.start(doubling, 1),
    "run_async": lambda engine: engine.run(doubling, 1),
    "result_async": lambda engine: engine.handle("w").result(),
    "status_async": lambda engine: engine.handle("w").status(),
    "info_async": lambda engine: engine.handle("w").info(),
    "read_stream_async": lambda engine: engine.read_stream("w", "k").read_all(),
    "list_workflows_async": lambda engine: engine.list_workflows(),
    "list_steps_async": lambda engine: engine.list_steps("w"),
    "list_async": lambda engine: engine.streams.list("w"),
    "run_worker_async": lambda engine: engine.run_worker("q"),
    "open_async": lambda engine: Engine(engine.database_url).open(),
}


@pytest.mark.parametrize("twin", BLOCKING)
def test_a_blocking_call_on_a_running_loop_names_its_twin(engine: Engine, twin: str) -> None:
    """It would hold the loop up, so it raises at once, and says what to write instead."""

    async def main() -> None:
        with pytest.raises(BlockingCallError, match=twin):
            BLOCKING[twin](engine)

    asyncio.run(main())
    assert engine.run(doubling, 1) == 2, "the engine is none the worse for it"


def test_a_blocking_write_in_an_async_workflow_names_its_twin(engine: Engine) -> None:
    """The same inside of workflows: the loop there is the engine's own."""

    @workflow
    async def blocking() -> None:
        write_stream("k", 1)

    with pytest.raises(BlockingCallError, match="write_stream_async"):
        engine.run(blocking)


def test_an_engine_that_is_not_open_says_so(database_url: str) -> None:
    """Before it opens and after it closed; opening it again works."""
    engine = Engine(database_url)
    with pytest.raises(EngineClosedError, match="with Engine"):
        engine.run(doubling, 1)
    with engine:
        assert engine.run(doubling, 1) == 2
    with pytest.raises(EngineClosedError):
        engine.run(doubling, 1)
    with pytest.raises(EngineClosedError):
        engine.handle("w")
    engine.open()
    try:
        assert engine.run(doubling, 2) == 4
        assert engine.open() is engine
    finally:
        engine.close()
        engine.close()  # does nothing


def test_a_setting_that_is_wrong_is_named(database_url: str) -> None:
    """Settings are checked when the engine is made, not when it first needs them."""
    with pytest.raises(ConfigurationError, match="lease=0"):
        Engine(database_url, lease=0)
    with pytest.raises(ConfigurationError, match="laese"):
        Engine(database_url, laese=1)
    with pytest.raises(ConfigurationError, match="schema"):
        Engine(database_url, schema="")


def test_an_engine_that_is_only_a_client_runs_nothing(client: Engine) -> None:
    """``executes=False``: a start is enqueued, and it takes no work."""
    handle = client.start(doubling, 1)
    with pytest.raises(WaitTimeoutError, match=rf"engine\.workflows\.explain\('{handle.workflow_id}'\)"):
        handle.result(timeout=0.3)
    assert handle.status() is WorkflowStatus.QUEUED
    with pytest.raises(EngineClosedError, match="executes=False"):
        client.run_worker()


def test_a_forked_process_is_told_to_open_its_own(database_url: str) -> None:
    """An engine does not survive a fork; using it in the child says so instead of hanging."""
    script = """
import os, sys, warnings
warnings.simplefilter("ignore")
from dbosflow import Engine
from dbosflow.errors import EngineClosedError
with Engine(sys.argv[1], executes=False) as engine:
    if os.fork() == 0:
        try:
            engine.list_workflows()
        except EngineClosedError as error:
            os._exit(42 if "fork" in str(error) else 1)
        os._exit(2)
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-c", script, database_url], env=os.environ, timeout=PATIENCE, check=False)
    assert done.returncode == 42


FORKING = """
import asyncio, os, signal, sys, warnings
warnings.simplefilter("ignore")
from dbosflow import Engine, step, workflow

@step
async def one() -> int:
    return 1

async def forked(how):
    child = os.fork()
    if not child:
        signal.alarm(30)
        if how == "exits":
            sys.exit(7)
        if how == "raises":
            raise ValueError
        if how == "waits":
            await asyncio.Event().wait()
        return 2
    return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1])

@step
async def forked_in_a_task(how):
    return await asyncio.create_task(forked(how))

@workflow
async def forking(how: str, place: str) -> int:
    await one()
    code = await (forked_in_a_task(how) if place == "task" else forked(how))
    return code + await one()

with Engine(sys.argv[1]) as engine:
    print(engine.run(forking, *sys.argv[2:]))
"""


@pytest.mark.parametrize("place", ["body", "task"])
@pytest.mark.parametrize(("how", "expected"), [("exits", "8"), ("raises", "2"), ("waits", "2"), ("returns", "2")])
def test_a_child_forked_on_the_loop_ends_where_it_comes_back_to_it(
    database_url: str, how: str, expected: str, place: str
) -> None:
    """By its ``sys.exit()``, or with a word why. Its parent, whose connections it has, goes on."""
    command = [sys.executable, "-c", FORKING, database_url, how, place]
    done = subprocess.run(command, env=os.environ, timeout=PATIENCE, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [expected]
    assert ("forked in a workflow" in done.stderr) == (how != "exits")


def test_workflows_in_another_schema_are_not_seen(database_url: str) -> None:
    """Engines of different schemas share a database, and nothing else."""
    with Engine(database_url, schema='else"where') as engine:
        handle = engine.start(doubling.options(workflow_id="w"), 4)
        assert handle.result(timeout=PATIENCE) == 8
        assert engine.read_stream("w", "results").read_all() == ([8], True)
        with Engine(database_url) as other:
            assert other.list_workflows() == []
