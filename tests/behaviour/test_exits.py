"""What is raised to end more than a function (an exit, a cancellation, an iteration) ends one step or one workflow."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus, for_each, for_each_async, sleep_async, step, workflow
from dbosflow.errors import StepFailedError
from tests.behaviour.interruption import Interruption
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


@pytest.mark.parametrize("colour", ["step on the pool", "step on the thread", "sync body", "async body"])
def test_stop_iteration_is_an_error_like_any_other(engine: Engine, colour: str) -> None:
    """``next()`` of something empty is a common slip; asyncio cannot carry its error, and must not hang on it."""

    @step
    def empty() -> int:
        return next(iter([]))

    @workflow
    async def on_pool() -> int:
        return await empty.run_async()

    @workflow
    def on_thread() -> int:
        return empty()

    @workflow
    def in_body() -> int:
        return next(iter([]))

    @workflow
    async def in_async_body() -> int:
        return next(iter([]))

    flow: Any = {
        "step on the pool": on_pool,
        "step on the thread": on_thread,
        "sync body": in_body,
        "async body": in_async_body,
    }[colour]
    with pytest.raises(Exception) as caught:  # noqa: PT011 (it is compared below)
        engine.start(flow).result(timeout=60)
    assert "StopIteration" in f"{type(caught.value).__name__} {caught.value}"


class _PanicError(BaseException):
    """What a library raises whose native code has failed."""


KINDS: list[BaseException] = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError("own"),
    _PanicError("out of bounds"),
    BaseExceptionGroup("several", [_PanicError("out of bounds"), ValueError("v")]),
]


def programs(kind: BaseException) -> dict[str, Any]:  # noqa: C901 (many small ones)
    """Workflows that raise ``kind``, each in another place."""

    async def raising() -> None:
        await asyncio.sleep(0)
        raise kind

    @step(max_attempts=3, interval=0)
    async def on_loop(_: int = 0) -> None:
        await raising()

    @step
    def on_thread(_: int = 0) -> None:
        raise kind

    @step
    async def in_a_task() -> None:
        await asyncio.gather(raising(), asyncio.sleep(0))

    @workflow
    async def step_on_loop() -> None:
        await on_loop()

    @workflow
    async def step_on_pool() -> None:
        await on_thread.run_async()

    @workflow
    async def task_of_a_step() -> None:
        await in_a_task()

    @workflow
    async def steps_in_a_group() -> None:
        await asyncio.gather(on_loop(), on_thread.run_async())

    @workflow
    def step_on_loop_from_thread() -> None:
        on_loop.run()

    @workflow
    def task_of_a_step_from_thread() -> None:
        in_a_task.run()

    @workflow
    def step_on_thread() -> None:
        on_thread()

    @workflow
    async def body() -> None:
        raise kind

    @workflow
    def body_on_thread() -> None:
        raise kind

    @workflow
    async def task() -> None:
        await asyncio.gather(raising(), asyncio.sleep(0))

    @workflow
    async def child() -> None:
        await body()

    @workflow
    def child_on_thread() -> None:
        body_on_thread()

    @workflow(inputs=["numbers"])
    async def handler() -> None:
        await for_each_async("numbers", on_loop)

    @workflow(inputs=["numbers"])
    def handler_on_thread() -> None:
        for_each("numbers", on_thread)

    found: dict[str, Any] = {name: one for name, one in locals().items() if hasattr(one, "options")}
    return found


@workflow
async def innocent() -> str:
    return "fine"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("host", ["a loop of the engine's", "the program's loop"])
def test_a_workflow_that_exits_fails_alone(database_url: str, kind: BaseException, host: str) -> None:
    """``sys.exit()`` somewhere in a library ends that workflow, not the engine and everybody else's work.

    Wherever it comes: in steps and bodies of both colours, their tasks, children, handlers of loops.
    """

    def each(engine: Engine) -> None:
        for name, flow in programs(kind).items():
            handle = engine.start(flow)
            if name.startswith("handler"):
                engine.write_stream(handle.workflow_id, "numbers", 1)
            with pytest.raises(Exception, match=type(kind).__name__):
                handle.result(timeout=60)
            assert handle.status() is WorkflowStatus.FAILED, name
            assert engine.start(innocent).result(timeout=60) == "fine"

    async def main() -> None:
        async with Engine(database_url) as engine:
            await asyncio.to_thread(each, engine)

    if host == "the program's loop":
        asyncio.run(main())
    else:
        with Engine(database_url) as engine:
            each(engine)


@pytest.mark.parametrize("kind", KINDS[:2] + KINDS[3:5], ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("colour", ["async", "sync"])
def test_an_exit_that_a_step_has_raised_is_on_record(database_url: str, kind: BaseException, colour: str) -> None:
    """So a replay takes the path of the live run, and the step is not run again."""
    passes: list[str] = []
    calls = 0
    interruption = Interruption()

    @step
    async def raising() -> None:
        nonlocal calls
        calls += 1
        raise kind

    @workflow
    async def on_loop() -> None:
        try:
            await raising()
        except BaseException as error:  # noqa: BLE001 (whatever it is)
            passes.append(repr(error))
        await interruption.point_async()

    @workflow
    def on_thread() -> None:
        try:
            raising.run()
        except BaseException as error:  # noqa: BLE001 (whatever it is)
            passes.append(repr(error))
        interruption.point()

    interruption.two_passes(database_url, on_loop if colour == "async" else on_thread)
    assert passes == [passes[0]] * 2
    assert calls == 1


@pytest.mark.parametrize("how", ["the engine closes", "the lease is lost"])
def test_a_run_that_stops_leaves_no_noise_in_the_log(
    database_url: str, execute: Callable[..., Any], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """The branches of a run that goes on elsewhere are over: nobody complains of errors that nobody awaits."""
    begun = threading.Event()

    @step
    async def long() -> None:
        begun.set()
        await asyncio.sleep(60)

    async def cleaning_up() -> None:
        try:
            await sleep_async(60)
        finally:
            raise ValueError

    @workflow
    async def flow() -> None:
        others = [asyncio.create_task(one()) for one in (cleaning_up, asyncio.Event().wait)]
        async with asyncio.TaskGroup() as group:
            group.create_task(cleaning_up())
            async with asyncio.TaskGroup() as inner:
                inner.create_task(asyncio.wait_for(asyncio.shield(others[0]), 60))
                inner.create_task(long())

    with Engine(database_url, grace=0.1, lease=1.5) as engine:
        engine.start(flow)
        assert begun.wait(PATIENCE)
        if how == "the lease is lost":
            execute("UPDATE dbosflow.worker SET state = 'dead'")
            eventually(lambda: any("lease of worker" in text for text in caplog.messages))
    gc.collect()
    assert [text for name, _, text in caplog.record_tuples if name == "asyncio"] == []


CTRL_C = """
import asyncio, signal, sys
from dbosflow import Engine, step, workflow

def interrupt():
    signal.raise_signal(signal.SIGINT)

@step
async def interrupted():
    interrupt()

@workflow
async def in_a_step():
    await interrupted()

@workflow
async def in_the_body():
    interrupt()

@workflow
async def in_a_task():
    async def task():
        interrupt()
    await asyncio.gather(task())

async def main():
    async with Engine(sys.argv[1], lease=1.5, grace=0.1) as engine:
        await engine.run_async(globals()[sys.argv[2]].options(workflow_id="w"))

loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("where", ["in_a_step", "in_the_body", "in_a_task"])
def test_ctrl_c_ends_the_program_and_no_workflow(database_url: str, client: Engine, where: str) -> None:
    """Where the engine runs on the main thread, it may come while code of a workflow runs. It is no outcome."""
    program = [sys.executable, "-c", CTRL_C, database_url, where]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "interrupted" in ended.stdout, ended.stderr
    assert client.handle("w").status() is WorkflowStatus.RUNNING
    assert client.list_steps("w") == []


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_a_step_that_is_cancelled_from_inside_has_failed(database_url: str, colour: str) -> None:
    """Nobody gave it up: a task of its own was cancelled. A replay must not wait for somebody to give it up."""
    passes: list[str] = []
    interruption = Interruption()

    @step
    async def awaiting_a_cancelled_task() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    @step
    def raising() -> None:
        raise asyncio.CancelledError

    async def failing() -> None:
        raise ValueError

    @workflow
    async def on_loop() -> str:
        for body in (awaiting_a_cancelled_task, raising, awaiting_a_cancelled_task):
            with pytest.raises(StepFailedError, match="CancelledError") as caught:
                await body.run_async()
            passes.append(str(caught.value))
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:  # which leaves the task cancelled in Python 3.11
                    group.create_task(failing())
        await interruption.point_async()
        return "done"

    @workflow
    def on_thread() -> str:
        with pytest.raises(StepFailedError, match="CancelledError") as caught:
            raising()
        passes.append(str(caught.value))
        interruption.point()
        return "done"

    assert interruption.two_passes(database_url, on_loop if colour == "async" else on_thread) == "done"
    half = len(passes) // 2
    assert passes[:half] == passes[half:]
    assert half
