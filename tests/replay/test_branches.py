"""How branches are named, and who may do durable work in one: on every Python alike."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, run_step_async, step, workflow, write_stream_async
from dbosflow.errors import BranchError
from tests.replay.model import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.replay.model import Outcome, Trace

REFUSED = "inherited the context"


def keys(run: Outcome) -> list[str]:
    """The keys of a run's records."""
    assert run.result.startswith("succeeded"), run.result
    return sorted(record.key for record in run.records)


def test_wait_for_shares_its_callers_branch_on_every_python() -> None:
    """Python 3.11 makes a task of it, 3.12 does not: a workflow outlives the upgrade between them."""

    async def program(run: Trace) -> Any:
        async def fetch(number: int) -> str:
            return await run.step("fetch", str(number))

        first = await asyncio.wait_for(fetch(0), 10)
        return [first, await run.step("fetch", "1"), await asyncio.wait_for(fetch(2), 10)]

    assert keys(execute(program, seed=0)) == ["fetch#0", "fetch#1", "fetch#2"]


def test_branches_are_named_by_what_they_run_and_how_many_of_that_came_before() -> None:
    """A stray task of another name, before or between, shifts nobody."""

    async def program(run: Trace) -> Any:
        async def stray() -> None:
            await asyncio.sleep(0)

        async def leaf(name: str) -> str:
            return await run.step("work", name)

        async def node(name: str) -> tuple[str, str]:
            return await asyncio.gather(leaf(f"{name}.0"), leaf(f"{name}.1"))

        if run.seed:
            asyncio.create_task(stray())  # noqa: RUF006 (as libraries do)
        tasks = [asyncio.create_task(node("a"))]
        if run.seed:
            asyncio.create_task(stray())  # noqa: RUF006
        tasks.append(asyncio.create_task(node("b")))
        return await asyncio.gather(*tasks)

    expected = [f"node#{node}/leaf#{leaf}/work#0" for node in range(2) for leaf in range(2)]
    assert keys(execute(program, seed=0)) == expected
    assert keys(execute(program, seed=1)) == expected


def test_tasks_of_steps_are_named_after_the_step(database_url: str) -> None:
    """``create_task(fetch(...))`` gives a branch that a reader of the records recognizes."""

    @step
    async def fetch(number: int) -> int:
        return number

    @workflow
    async def fetches() -> Any:
        return await asyncio.gather(fetch(0), fetch(1), run_step_async("lambda", lambda: 2))

    async def main() -> None:
        async with Engine(database_url) as engine:
            handle = await engine.start_async(fetches)
            assert await handle.result_async(10) == [0, 1, 2]
            found = [record.key for record in await engine.list_steps_async(handle.workflow_id)]
            assert sorted(found) == ["fetch#0/fetch#0", "fetch#1/fetch#0", "lambda#0/lambda#0"]

    asyncio.run(main())


def test_as_completed_over_coroutines_is_refused() -> None:
    """It starts them in the order of a set; the error says what to write instead."""

    async def program(run: Trace) -> Any:
        coroutines = [run.step("ask", str(number)) for number in range(9)]
        try:
            for next_one in asyncio.as_completed(coroutines):
                await next_one
        except BranchError as error:
            return str(error)
        finally:
            for coroutine in coroutines:
                coroutine.close()

    run = execute(program, seed=0)
    assert "asyncio.create_task(c) for c in" in run.result
    assert run.records == []


def test_two_tasks_in_one_context_are_two_branches() -> None:
    """The context that they were given says whose children they are, not who they are."""

    async def program(run: Trace) -> Any:
        async def child(number: int) -> str:
            await asyncio.sleep(0)
            return await run.step("work", str(number))

        loop, shared = asyncio.get_running_loop(), contextvars.copy_context()
        return await asyncio.gather(*(loop.create_task(child(number), context=shared) for number in range(2)))

    assert keys(execute(program, seed=0)) == ["child#0/work#0", "child#1/work#0"]


def test_a_context_carried_to_another_branch_gives_no_right_to_its_name() -> None:
    """A child counted by one branch and made by another would be named by timing."""

    async def program(run: Trace) -> Any:
        async def child() -> str:
            return await run.step("work", "stolen")

        async def thief(context: contextvars.Context) -> str:
            return await asyncio.get_running_loop().create_task(child(), context=context)

        await run.step("begin", "")
        return await asyncio.create_task(thief(contextvars.copy_context()))

    run = execute(program, seed=0)
    assert REFUSED in run.result
    assert [record.key for record in run.records] == ["begin#0"]


def test_a_callback_does_no_durable_work() -> None:
    """When it runs is timing: live A tick B, replayed A B tick."""

    async def program(run: Trace) -> Any:
        loop = asyncio.get_running_loop()
        refused = loop.create_future()

        def tick() -> None:
            asyncio.ensure_future(write()).add_done_callback(lambda task: refused.set_result(str(task.exception())))

        async def write() -> None:
            await write_stream_async("out", "tick")

        loop.call_later(0.002, tick)
        await run.write("A")
        await run.step("work", "", takes=0.01)
        await run.write("B")
        return await refused

    run = execute(program, seed=0)
    assert REFUSED in run.result
    assert run.stream == ["A", "B"]


def test_an_abandoned_async_generator_does_no_durable_work() -> None:
    """The collector closes it at a time of its own, in the context of whoever happens to run."""
    refusals: list[str] = []

    async def program(run: Trace) -> Any:
        async def generate() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                try:
                    await run.step("clean up", "")
                except BranchError as error:
                    refusals.append(str(error))

        async def user() -> None:
            generator = generate()
            await anext(generator)
            cycle: list[Any] = [generator]
            cycle.append(cycle)

        async def other() -> str:
            await asyncio.sleep(0.001)
            gc.collect()
            return await run.step("work", "")

        return await asyncio.gather(user(), other())

    gc.disable()
    try:
        run = execute(program, seed=0)
    finally:
        gc.enable()
    assert keys(run) == ["other#0/work#0"]
    assert len(refusals) == 1
    assert REFUSED in refusals[0]


def test_a_branch_does_one_thing_at_a_time() -> None:
    """Its operations have an order; two at once have none."""

    async def program(run: Trace) -> Any:
        begun = run.sleep(0.01)
        begun.send(None)  # by hand, as nobody does: it stays under way
        try:
            return await run.step("work", "meanwhile")
        finally:
            begun.close()

    assert "another operation of the same branch is under way" in execute(program, seed=0).result


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_eager_task_made_behind_the_engines_back_does_no_durable_work() -> None:
    """``Task(..., eager_start=True)`` asks no factory: it runs in its creator's context, but is not its creator."""

    async def program(run: Trace) -> Any:
        async def child() -> str:
            return await run.step("work", "")

        loop: Any = asyncio.get_running_loop()
        make: Any = asyncio.Task
        return await make(child(), loop=loop, eager_start=True)

    assert REFUSED in execute(program, seed=0).result


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_tasks_of_a_factory_set_after_the_engines_do_no_durable_work() -> None:
    """Whoever replaces the loop's factory while workflows run is told by the first operation of such a task."""

    async def program(run: Trace) -> Any:
        async def child() -> str:
            return await run.step("work", "")

        loop: Any = asyncio.get_running_loop()
        ours = loop.get_task_factory()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 (3.11 has none)
        try:
            return await asyncio.create_task(child())
        finally:
            loop.set_task_factory(ours)

    assert REFUSED in execute(program, seed=0).result
