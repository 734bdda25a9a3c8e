"""A workflow that would wait for itself gets an error; asyncio.run in sync code works, or is refused in words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    Stream,
    current,
    for_each_async,
    run_step_async,
    sleep_async,
    step,
    workflow,
    write_stream_async,
)
from dbosflow.errors import BranchError, DeadlockError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PATIENCE = 60.0
engines: dict[str, Engine] = {}


# -- circles ---------------------------------------------------------------------------------------------------------


@workflow
async def itself_on_loop(how: str) -> str:
    own: Any = itself_on_loop.options(workflow_id="w")
    ways: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "a handle": lambda: engines["here"].handle("w").result_async(),
        "engine.run": lambda: engines["here"].run_async(own, how),
        "a child under its id": lambda: own.start_async(how),
    }
    with pytest.raises(DeadlockError, match="would"):
        await ways[how]()
    return "refused"


@workflow
def itself_on_thread(how: str) -> str:
    own: Any = itself_on_thread.options(workflow_id="w")
    ways: dict[str, Callable[[], Any]] = {
        "a handle": lambda: engines["here"].handle("w").result(),
        "engine.run": lambda: engines["here"].run(own, how),
        "a child under its id": lambda: own.start(how),
    }
    with pytest.raises(DeadlockError, match="would"):
        ways[how]()
    return "refused"


@pytest.mark.parametrize("how", ["a handle", "engine.run", "a child under its id"])
@pytest.mark.parametrize("flow", [itself_on_loop, itself_on_thread], ids=["async", "sync"])
def test_a_workflow_does_not_wait_for_itself(engine: Engine, how: str, flow: Any) -> None:
    """Its result comes with its end. It gets the error at once, and can go on; what came of the wait is on record."""
    engines["here"] = engine
    assert engine.start(flow.options(workflow_id="w"), how).result(timeout=PATIENCE) == "refused"
    errors = [one.error["type"] for one in engine.list_steps("w") if one.error is not None]
    assert errors == (["DeadlockError"] if how == "a handle" else [])


@pytest.mark.parametrize("colour", ["async", "sync"])
@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_circle_of_waits_is_broken_where_it_would_close(engine: Engine, colour: str, length: int) -> None:
    """A child waits for its parent, or for that one's. The one that closes the circle gets an error, then all others.

    That may be the parent: its child runs, and waits, before it does so itself. The top then ends before what is below
    it, which waits on: so the test waits for all of them before it looks whether any wait is left.
    """

    @workflow
    async def on_loop(below: int) -> str:
        try:
            if below:
                return await on_loop(below - 1)
            return str(await engine.handle("top").result_async())
        except DeadlockError as error:
            return f"refused: {error}"

    @workflow
    def on_thread(below: int) -> str:
        try:
            if below:
                return on_thread(below - 1)
            return str(engine.handle("top").result())
        except DeadlockError as error:
            return f"refused: {error}"

    flow: Any = on_loop if colour == "async" else on_thread
    found = engine.start(flow.options(workflow_id="top"), length - 1).result(timeout=PATIENCE)
    assert found.startswith("refused: ")
    assert found.count(" waits for ") == length - 1
    for one in engine.list_workflows():
        engine.handle(one.id).result(timeout=PATIENCE)
    core: Any = engine._open_core
    assert len(core.waits) == 0


def test_waits_that_end_by_themselves_are_no_circle(engine: Engine) -> None:
    """A child may wait for a parent that does not wait for it; branches of one may wait for the same."""

    @workflow
    async def child(parent: str) -> str:
        return f"after {await engine.handle(parent).result_async()}"

    @workflow
    async def parent() -> str:
        handle = await child.start_async(current().workflow_id)
        return handle.workflow_id

    @workflow
    async def other(workflow_id: str) -> list[str]:
        waits = [asyncio.create_task(engine.handle(workflow_id).result_async()) for _ in range(3)]
        return [str(await one) for one in waits]

    child_id = engine.start(parent).result(timeout=PATIENCE)
    outcome = engine.handle(child_id).result(timeout=PATIENCE)
    assert outcome == f"after {child_id}"
    assert engine.start(other, child_id).result(timeout=PATIENCE) == [outcome] * 3


# -- loops of the program's own --------------------------------------------------------------------------------------


@step
async def plus_one(number: int) -> int:
    return number + 1


numbers = Stream[int, None]("numbers")


async def many(count: int) -> list[int]:
    """What a step may do on a loop of its own: writes that wait for room, a flush, what stands, other steps."""
    writer = numbers.writer(on_retry="resume")
    for number in range(count):
        await writer.write_async(number)
    await writer.flush_async()
    return [len(await writer.emitted_async()), await plus_one(1)]


@pytest.mark.parametrize("colour", ["in the pool", "on the thread"])
def test_a_sync_step_may_run_a_loop_of_its_own(database_url: str, colour: str) -> None:
    """Also where its writes wait for room, which comes on the engine's loop."""

    @step
    def looping() -> list[int]:
        return asyncio.run(many(200))

    @workflow
    async def in_pool() -> list[int]:
        return await looping.run_async()

    @workflow
    def on_thread() -> list[int]:
        return looping()

    flow: Any = in_pool if colour == "in the pool" else on_thread
    with Engine(database_url, buffer_bytes=400) as engine:
        handle = engine.start(flow)
        assert handle.result(timeout=PATIENCE) == [200, 2]
        assert engine.read(numbers, handle.workflow_id).read_all() == (list(range(200)), True)


@workflow
async def idle() -> None: ...


OPERATIONS: dict[str, Callable[[Engine], Coroutine[Any, Any, Any]]] = {
    "a step": lambda _: plus_one(1),
    "any callable": lambda _: run_step_async("double", lambda: 2),
    "a sleep": lambda _: sleep_async(0),
    "a write": lambda _: write_stream_async("k", 1),
    "a flush": lambda _: numbers.writer().flush_async(),
    "a result": lambda engine: engine.handle("w").result_async(),
    "a child": lambda _: idle(),
    "a loop": lambda _: for_each_async("i", plus_one),
}


@pytest.mark.parametrize("what", OPERATIONS)
def test_a_sync_workflow_may_not_run_a_loop_of_its_own(engine: Engine, what: str) -> None:
    """What goes on there in which order no replay can repeat. Its error says at once what to write instead."""

    async def main() -> None:
        await OPERATIONS[what](engine)

    @workflow(inputs=["i"])
    def flow() -> str:
        with pytest.raises(BranchError, match=r"asyncio\.run.* Make the workflow async"):
            asyncio.run(main())
        return "refused"

    handle = engine.start(flow.options(workflow_id="w"))
    assert handle.result(timeout=PATIENCE) == "refused"
    assert engine.list_steps("w") == []
