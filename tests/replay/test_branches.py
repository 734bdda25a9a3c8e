"""How branches are named, and which code may do durable work in one: on every Python alike."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, branch, current, run_step_async, step, workflow, write_stream_async
from dbosflow.errors import BranchError
from tests.replay.crashes import crash_everywhere
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


async def test_tasks_of_steps_are_named_after_the_step(database_url: str) -> None:
    """``create_task(fetch(...))`` gives a branch that a reader of the records recognizes."""

    @step
    async def fetch(number: int) -> int:
        return number

    @workflow
    async def fetches() -> Any:
        return await asyncio.gather(fetch(0), fetch(1), run_step_async("lambda", lambda: 2))

    async with Engine(database_url) as engine:
        handle = await engine.start_async(fetches)
        assert await handle.result_async(10) == [0, 1, 2]
        found = [record.key for record in await engine.list_steps_async(handle.workflow_id)]
        assert sorted(found) == ["fetch#0/fetch#0", "fetch#1/fetch#0", "lambda#0/lambda#0"]


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
    """The context that they were given names their parent, not them."""

    async def program(run: Trace) -> Any:
        async def child(number: int) -> str:
            await asyncio.sleep(0)
            return await run.step("work", str(number))

        loop, shared = asyncio.get_running_loop(), contextvars.copy_context()
        return await asyncio.gather(*(loop.create_task(child(number), context=shared) for number in range(2)))

    assert keys(execute(program, seed=0)) == ["child#0/work#0", "child#1/work#0"]


def test_a_task_is_a_branch_of_whoever_makes_it_in_whatever_context() -> None:
    """A child counted by one branch and made by another would be named by timing."""

    async def program(run: Trace) -> Any:
        async def child() -> str:
            return await run.step("work", "carried")

        async def carrier(context: contextvars.Context) -> str:
            return await asyncio.get_running_loop().create_task(child(), context=context)

        await run.step("begin", "")
        return await asyncio.create_task(carrier(contextvars.copy_context()))

    assert keys(execute(program, seed=0)) == ["begin#0", "carrier#0/child#0/work#0"]


def test_context_variables_copied_out_of_a_task_make_nobody_that_task() -> None:
    """Libraries hand a child's context on to its parent: all that the parent does and makes stays its own."""

    async def program(run: Trace) -> Any:
        async def child() -> contextvars.Context:
            await run.step("work", "child")
            return contextvars.copy_context()

        for variable, value in (await asyncio.create_task(child())).items():
            variable.set(value)
        await run.step("work", "parent")
        await asyncio.create_task(child())
        return await asyncio.gather(run.step("work", "together"))

    assert keys(execute(program, seed=0)) == ["Trace.step#0/work#0", "child#0/work#0", "child#1/work#0", "work#0"]


def test_context_variables_copied_out_of_a_step_leave_the_body_durable() -> None:
    """Else what it does then would be plain calls, and leave no record."""

    async def program(run: Trace) -> Any:
        found: list[contextvars.Context] = []

        async def body() -> None:
            found.append(contextvars.copy_context())

        await run_step_async("look", body)
        for variable, value in found[0].items():
            variable.set(value)
        await run.step("work", "in the body")
        return await asyncio.create_task(run.step("work", "in a task"), name="task")

    assert keys(execute(program, seed=0)) == ["look#0", "task#0/work#0", "work#0"]


def test_a_task_in_an_empty_context_is_no_branch() -> None:
    """So is meant what a library runs in the background: it has nothing to do with the workflow."""

    async def program(run: Trace) -> Any:
        async def background() -> str:
            async def plain() -> str:
                return "done"

            return await run_step_async("plain", plain)

        return await asyncio.create_task(background(), context=contextvars.Context())

    run = execute(program, seed=0)
    assert run.result == 'succeeded: "done"'
    assert run.records == []


def test_a_context_that_a_task_was_given_is_the_one_it_runs_in() -> None:
    """What it sets there is found there, as without an engine."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def program(run: Trace) -> Any:
        async def child() -> None:
            variable.set(await run.step("work", ""))

        context = contextvars.copy_context()
        await asyncio.create_task(child(), context=context)
        return context[variable]

    assert execute(program, seed=0).result == 'succeeded: "work()"'


def test_a_factory_that_wraps_coroutines_hides_no_branch() -> None:
    """Tracing libraries do it: the coroutine of the task is not the one that the engine knows."""

    def wrapping(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        async def traced() -> Any:
            return await coro

        return asyncio.Task(traced(), loop=loop, **options)

    async def program(run: Trace) -> Any:
        async def child(number: int) -> str:
            return await run.step("work", str(number))

        return await asyncio.gather(child(0), child(1))

    run = execute(program, seed=0, factory=wrapping)
    assert keys(run) == ["child#0/work#0", "child#1/work#0"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("charge", "charge#0"),
        ("charge the card", "charge the card#0"),
        ("worker1", "worker1#0"),
        ("overlay", "overlay#0"),
        ("Ärger2", "Ärger2#0"),
        ("a/b#c@d%+~", "a%2Fb%23c%40d%25%2B%7E#0"),
        ("two\nlines\0\udcff", "two%0Alines%00%ED%B3%BF#0"),
        ("x" * 256, "x" * 256 + "#0"),
        ("ü" * 200, "ü" * 32 + "~" + sha256(("ü" * 200).encode()).hexdigest() + "#0"),
        # as anyio names tasks:
        ("shop.orders_2.Order.charge", "charge#0"),
        ("shop.orders.test.<locals>.charge_1", "charge_1#0"),
        ("shop.orders.<lambda>", "<lambda>#0"),
        # what a replay may not give again:
        (None, "child#0"),
        ("None", "child#0"),
        ("Task-7", "child#0"),
        ("job-3", "child#0"),
        ("job_3", "child#0"),
        ("3rd job", "child#0"),
        ("order 17", "child#0"),
        ("job1234", "child#0"),
        ("call:deadbeef", "child#0"),
        ("shop.orders.charge1234", "child#0"),
        ("at 0x7f067d39ae80", "child#0"),
    ],
)
def test_a_branch_has_the_name_of_its_task_if_a_replay_gives_it_again(given: str | None, found: str) -> None:
    async def program(run: Trace) -> Any:
        async def child() -> str:
            return await run.step("work", "")

        return await asyncio.create_task(child(), name=given)

    assert keys(execute(program, seed=0)) == [f"{found}/work#0"]


def test_a_name_given_to_the_task_before_it_begins_is_its_name() -> None:
    """``set_name`` comes after the task, and before the task has done anything."""

    async def program(run: Trace) -> Any:
        async def child() -> str:
            return await run.step("work", "")

        tasks = [asyncio.create_task(child()) for _ in range(2)]
        for task, name in zip(tasks, ("left", "right"), strict=True):
            task.set_name(name)
        return await asyncio.gather(*tasks)

    assert keys(execute(program, seed=0)) == ["left#0/work#0", "right#0/work#0"]


def test_a_task_that_is_cancelled_before_it_begins_counts() -> None:
    """Whether a cancellation is so early may be timing in other programs; what came before does not shift it."""

    async def program(run: Trace) -> Any:
        async def child(name: str) -> str:
            return await run.step("work", name)

        first, second = (asyncio.create_task(child(name)) for name in ("first", "second"))
        first.cancel()
        return await second

    assert keys(execute(program, seed=0)) == ["child#1/work#0"]


def test_names_of_steps_and_branches_may_hold_what_separates_them() -> None:
    """Each has its own key, whatever it is called; a second execution finds each record."""

    async def program(run: Trace) -> Any:
        async def child(name: str) -> str:
            return await run.step(name, "")

        names = ("a/b", "a%xb", "a|b", "a#b/c", "a@b", "a+b", "~")
        found = [await run.step(name, "") for name in (*names, "a%2Fb", "a@1.1")]
        return found + await asyncio.gather(*(asyncio.create_task(child(name), name=name) for name in names))

    assert crash_everywhere(program, seed=0, delay=0) == []
    escaped = ["a%2Fb#0", "a%25xb#0", "a|b#0", "a%23b%2Fc#0", "a%40b#0", "a%2Bb#0", "%7E#0"]
    expected = [*escaped, "a%252Fb#0", "a%401.1#0", *(f"{one}/{one}" for one in escaped)]
    assert keys(execute(program, seed=0)) == sorted(expected)


def test_branches_in_branches_have_keys_that_an_index_takes() -> None:
    """However deep, and each its own."""

    async def program(run: Trace) -> Any:
        async def deeper(depth: int) -> list[str]:
            if not depth:
                return [await run.step("bottom", "")]
            below, beside = await asyncio.gather(deeper(depth - 1), deeper(0))
            return [await run.step("work", str(depth)), *below, *beside]

        return await deeper(100)

    found = keys(execute(program, seed=0))
    assert len(set(found)) == 201
    assert max(len(key.encode()) for key in found) < 600


def test_a_region_names_what_a_task_does_whoever_made_it() -> None:
    """Its keys begin at the root, and so do those of the tasks that it makes."""

    async def program(run: Trace) -> Any:
        async def leaf() -> str:
            return f"{current().branch} {await run.step('leaf', '')}"

        async def call(number: int) -> Any:
            await run.step("before", "")
            with branch(f"call:{number}"):
                found = [current().branch, await run.step("work", ""), await asyncio.gather(leaf(), leaf())]
                with branch(f"call/{number}"):
                    found.append(await run.step("work", ""))
                await run.write(str(number))
                await run.step("work", "")
            await run.step("after", "")
            return [*found, current().branch]

        return await asyncio.gather(call(17), call(18))

    assert crash_everywhere(program, seed=0, delay=0.0007) == []
    expected = [f"call#{number}/{name}#0" for number in range(2) for name in ("before", "after")]
    for number in (17, 18):
        expected += [f"call:{number}/{key}" for key in ("work#0", "work#1", "leaf#0/leaf#0", "leaf#1/leaf#0")]
        expected.append(f"call%2F{number}/work#0")
    run = execute(program, seed=0)
    assert keys(run) == sorted(expected)
    leaves = '["call:17/leaf#0 leaf()", "call:17/leaf#1 leaf()"]'.replace(", ", ",")
    assert f'["call:17","work()",{leaves},"work()","call#0"]' in run.result.replace('", "', '","')
    assert {producer for commit in run.commits for *_, producer in commit.blocks} >= {"call:17", "call:18"}


def test_a_region_of_one_name_is_entered_once() -> None:
    """Two would share its keys, and which of them is the first could be timing."""

    async def program(run: Trace) -> Any:
        with branch("one"):
            await run.step("work", "")
        with branch("one"):
            return await run.step("work", "")

    run = execute(program, seed=0)
    assert "BranchError" in run.result
    assert "was entered before" in run.result
    assert [record.key for record in run.records] == ["one/work#0"]


def test_a_region_that_a_callback_enters_is_refused() -> None:
    async def program(run: Trace) -> Any:
        refused = asyncio.get_running_loop().create_future()

        def tick() -> None:
            try:
                with branch("tick"):
                    refused.set_result("entered")
            except BranchError as error:
                refused.set_result(str(error))

        asyncio.get_running_loop().call_soon(tick)
        return await refused

    assert REFUSED in execute(program, seed=0).result


def test_what_wait_for_awaits_without_a_limit_makes_branches_of_its_own() -> None:
    """It makes no task then, on any Python: the tasks are made by what it awaits."""

    async def program(run: Trace) -> Any:
        async def one() -> str:
            await run.step("first", "", takes=0.3)
            return await run.step("note", "one")

        async def two() -> str:
            await asyncio.sleep(0.05)
            return await run.step("note", "two")

        async def both() -> list[str]:
            return list(await asyncio.gather(one(), two()))

        found = await asyncio.wait_for(both(), None)
        await run.step("last", "")
        return found

    assert crash_everywhere(program, seed=0, delay=0.0007) == []
    assert keys(execute(program, seed=0)) == ["last#0", "one#0/first#0", "one#0/note#0", "two#0/note#0"]


@pytest.mark.parametrize("limit", [None, 10, 0, -1])
def test_what_wait_for_awaits_has_the_same_keys_on_every_python(limit: float | None) -> None:
    """Also where it makes a task only to cancel it, and what it waits for is an awaitable object."""

    class Fetching:
        def __init__(self, run: Trace) -> None:
            self._run = run

        def __await__(self) -> Any:
            return self._run.step("fetch", "").__await__()

    async def program(run: Trace) -> Any:
        async def fetch() -> str:
            return await run.step("fetch", "")

        for wanted in (fetch(), Fetching(run)):
            with suppress(TimeoutError):
                await asyncio.wait_for(wanted, limit)
        return await asyncio.create_task(fetch())

    own = [] if limit is not None and limit <= 0 else ["fetch#0", "fetch#1"]
    assert keys(execute(program, seed=0)) == [*own[:1], "fetch#0/fetch#0", *own[1:]]


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
    """The collector closes it at a time of its own, in the context of the task that happens to run."""
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
    """When code replaces the loop's factory while workflows run, the first operation of such a task says so."""

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
