"""A branch is one thread of control. Whatever else does durable work in its name is refused, with the right way."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, branch, current, step, workflow, write_stream, write_stream_async
from dbosflow.errors import BranchError, ConfigurationError
from tests.behaviour.tables import records
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE = 60.0


@step
async def echoed(value: int) -> int:
    return value


@step
def echoed_on_thread(value: int) -> int:
    return value


async def _caught(errors: list[BaseException], work: Awaitable[Any]) -> None:
    try:
        await work
    except BranchError as error:
        errors.append(error)


async def _write_in_callback(errors: list[BaseException], schedule: Callable[[Callable[[], None]], object]) -> None:
    done = asyncio.Event()

    def tick() -> None:
        try:
            write_stream_async("k", 1).send(None)
        except BranchError as error:
            errors.append(error)
        done.set()

    schedule(tick)
    await done.wait()


async def write_in_callback(errors: list[BaseException]) -> None:
    """A timer's callback has inherited the context, and runs between the branch's own turns."""
    await _write_in_callback(errors, asyncio.get_running_loop().call_soon)


async def _on_thread(errors: list[BaseException], call: Callable[[], object]) -> None:
    def work() -> None:
        try:
            call()
        except BranchError as error:
            errors.append(error)

    await asyncio.to_thread(work)


async def step_in_thread(errors: list[BaseException]) -> None:
    """``to_thread`` copies the context: the step would take its key by timing."""
    await _on_thread(errors, lambda: echoed_on_thread(1))


async def write_in_thread(errors: list[BaseException]) -> None:
    """So would a write."""
    await _on_thread(errors, lambda: write_stream("k", 1))


async def as_completed_of_coroutines(errors: list[BaseException]) -> None:
    """It makes tasks of a set, in the order of their addresses."""
    coroutines = [echoed(1), echoed(2)]
    try:
        for future in asyncio.as_completed(coroutines):
            await future
    except BranchError as error:
        errors.append(error)
    for coroutine in coroutines:
        coroutine.close()  # else Python warns of those that nobody awaits now


async def copied_context(errors: list[BaseException]) -> None:
    """A context copied by hand makes a callback no better."""

    def schedule(tick: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(0, functools.partial(contextvars.copy_context().run, tick))

    await _write_in_callback(errors, schedule)


async def two_operations_at_once(errors: list[BaseException]) -> None:
    """Driving two coroutines by hand in one task is not what a branch is."""
    first, second = echoed(1), echoed(2)
    first.send(None)
    await _caught(errors, second)
    first.close()


REFUSED: dict[str, Callable[[list[BaseException]], Awaitable[None]]] = {
    "write in a callback": write_in_callback,
    "step in a thread": step_in_thread,
    "write in a thread": write_in_thread,
    "as_completed of coroutines": as_completed_of_coroutines,
    "callback in a copied context": copied_context,
    "two operations at once": two_operations_at_once,
}
HINTS = "asyncio.create_task|run_async|task of its own"


@pytest.mark.parametrize("which", REFUSED)
def test_work_that_is_no_branchs_is_refused_with_the_fix(database_url: str, engine: Engine, which: str) -> None:
    """It leaves no record and no value, and the workflow goes on if it catches the error."""
    errors: list[BaseException] = []

    @workflow
    async def flow() -> int:
        await REFUSED[which](errors)
        return await echoed(7)

    assert engine.run(flow.options(workflow_id="w")) == 7
    assert len(errors) == 1
    assert any(hint in str(errors[0]) for hint in HINTS.split("|")), errors[0]
    assert ("echoed#1" if which == "two operations at once" else "echoed#0", "step") in records(database_url, "w")
    assert engine.read_stream("w", "k").read_all() == ([], True)


def test_a_thread_of_a_sync_workflow_that_carries_its_context_is_refused(engine: Engine) -> None:
    """A sync workflow is one thread; another that copies its context is not it."""
    errors: list[BaseException] = []

    @workflow
    def flow() -> int:
        def work() -> None:
            try:
                echoed_on_thread(1)
            except BranchError as error:
                errors.append(error)

        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        thread.start()
        thread.join(PATIENCE)
        return echoed_on_thread(2)

    assert engine.run(flow) == 2
    assert len(errors) == 1


def test_tasks_are_branches_with_names_of_their_own(database_url: str, engine: Engine) -> None:
    """A branch is named when it is created, by its function and how many of it there were; its steps follow."""

    async def worker(value: int) -> int:
        await asyncio.sleep(0.02 - value * 0.01)  # the later one gets to its step first
        return await echoed(value)

    async def parent() -> list[int]:
        return list(await asyncio.gather(worker(0), worker(1)))

    @workflow
    async def flow() -> list[Any]:
        grouped = asyncio.create_task(parent())
        direct = await asyncio.gather(echoed(5), echoed(6))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(worker(value)) for value in (0, 1)]
        return [await grouped, direct, [task.result() for task in tasks], await asyncio.wait_for(echoed(9), 60)]

    assert engine.run(flow.options(workflow_id="w")) == [[0, 1], [5, 6], [0, 1], 9]
    assert {key for key, _ in records(database_url, "w")} == {
        "parent#0/worker#0/echoed#0",
        "parent#0/worker#1/echoed#0",
        "echoed#0/echoed#0",
        "echoed#1/echoed#0",
        "worker#0/echoed#0",
        "worker#1/echoed#0",
        "echoed#0",
    }


def test_a_context_shared_by_two_tasks_gives_two_branches(database_url: str, engine: Engine) -> None:
    """Also when the author hands one context to both."""

    async def worker(value: int) -> int:
        return await echoed(value)

    @workflow
    async def flow() -> list[int]:
        context = contextvars.copy_context()
        tasks = [asyncio.create_task(worker(value), context=context) for value in (1, 2)]
        return [await task for task in tasks]

    assert engine.run(flow.options(workflow_id="w")) == [1, 2]
    assert {key for key, _ in records(database_url, "w")} == {"worker#0/echoed#0", "worker#1/echoed#0"}


async def test_a_librarys_task_factory_stays_in_its_place(database_url: str) -> None:
    """The loop's own factory still makes every task, and gets it back when the engine closes."""
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(type(coro).__name__)
        return asyncio.Task(coro, loop=loop, **options)

    @workflow
    async def flow() -> list[int]:
        return list(await asyncio.gather(echoed(1), echoed(2)))

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    async with Engine(database_url) as engine:
        assert await engine.run_async(flow.options(workflow_id="w")) == [1, 2]
    assert loop.get_task_factory() is factory
    assert made
    assert len(records(database_url, "w")) == 2


def test_tasks_that_nobody_waits_for_end_with_their_workflow(database_url: str, engine: Engine) -> None:
    """As tasks end with their loop: they do no durable work for a workflow that is over."""
    cancelled: list[bool] = []

    async def stray() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            await echoed(1)

    @workflow
    async def flow() -> str:
        task = asyncio.create_task(stray())
        await echoed(0)
        return task.get_name() and "done"

    assert engine.run(flow.options(workflow_id="w")) == "done"
    assert cancelled == [True]
    assert records(database_url, "w") == [("echoed#0", "step")]


@step
def where_on_thread() -> str:
    return current().branch


def test_a_region_restarts_the_keys_of_a_sync_workflow(database_url: str, engine: Engine) -> None:
    """And of the streams that it writes: each region goes on where a replay finds it."""

    @workflow
    def flow() -> list[str]:
        found = [current().branch, where_on_thread()]
        with branch("order:17"):
            write_stream("k", 1)
            found += [current().branch, where_on_thread()]
            with branch("inner"):
                found.append(where_on_thread())
            found.append(where_on_thread())
        return [*found, where_on_thread()]

    assert engine.run(flow.options(workflow_id="w")) == ["", "", "order:17", "order:17", "inner", "order:17", ""]
    assert {key for key, _ in records(database_url, "w")} == {
        "where_on_thread#0",
        "where_on_thread#1",
        "order:17/where_on_thread#0",
        "order:17/where_on_thread#1",
        "inner/where_on_thread#0",
    }
    assert [one.producers for one in engine.streams.list("w")] == [("order:17",)]


def test_a_region_changes_nothing_in_a_step_or_outside_of_workflows(engine: Engine) -> None:
    """So code that names what it does can be called from anywhere."""

    @step
    def twice() -> list[str]:
        with branch("once"):
            first = current().branch
        with branch("once"):
            return [first, current().branch]

    @workflow
    def flow() -> list[str]:
        return twice()

    assert engine.run(flow) == ["", ""]
    with branch("once"):
        assert echoed_on_thread(1) == 1


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 600, 7])
def test_a_region_of_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="branch name"), branch(name):
        pass


def test_a_region_ends_with_its_block_however_that_ends(database_url: str, engine: Engine) -> None:
    """An exception leaves it, and so does a cancellation."""

    async def hang() -> None:
        with branch("hanging"):
            await asyncio.sleep(60)

    @workflow
    async def flow() -> int:
        try:
            with branch("failing"):
                await echoed(-1 // 0)
        except ZeroDivisionError:
            await echoed(1)
        try:
            async with asyncio.timeout(0.01):
                await hang()
        except TimeoutError:
            await echoed(2)
        return await echoed(3)

    assert engine.run(flow.options(workflow_id="w")) == 3
    assert {key for key, _ in records(database_url, "w")} == {"echoed#0", "echoed#1", "echoed#2"}


@pytest.mark.parametrize("goes_on", [False, True])
def test_an_abandoned_generator_is_warned_of(engine: Engine, caplog: Any, *, goes_on: bool) -> None:
    """Whether the body goes on or is over when Python closes it: the workflow succeeds, and asyncio reports nothing."""
    over = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            over.set()
            await echoed(1)

    @workflow
    async def flow() -> int:
        async for _ in numbers():
            break
        if goes_on:
            await over.wait()
        return 2

    assert engine.run(flow) == 2
    eventually(lambda: caplog.records)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "contextlib.aclosing" in caplog.text
