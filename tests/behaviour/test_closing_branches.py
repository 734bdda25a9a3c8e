"""An engine that closes while a workflow's branches are at work: nothing that is only half done becomes its end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowStatus, durable, step, workflow
from tests.behaviour.interruption import PATIENCE
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

WAITING_BATCHES = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%%FOR KEY SHARE%%'"""


TURNS = 1000
"""Turns of the event loop: more than any branch needs for what it does next."""


class Course:
    """A step that is under way while the engine closes, and a branch that asks for its next step meanwhile."""

    def __init__(self) -> None:
        self.under_way = threading.Event()
        self.closing = threading.Event()
        self.asked = threading.Event()

    async def first(self) -> str:
        """Runs until the other branch has asked, and has had time to make something of an answer."""
        self.under_way.set()
        await asyncio.to_thread(self.asked.wait, PATIENCE)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return "first"

    async def is_closing(self) -> None:
        await asyncio.to_thread(self.closing.wait, PATIENCE)


async def in_a_group(call: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    """The next step in a task group, which wraps whatever it raises."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call())
    return [task.result()]


async def swallowed(call: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    """The next step by somebody who takes whatever it raises for a result."""
    found = await asyncio.gather(call(), return_exceptions=True)
    return [str(one) for one in found]


async def wrapped(call: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    """The next step by somebody who makes an error of his own of whatever it raises."""
    try:
        return [await call()]
    except BaseException as error:
        raise ValueError from error


@pytest.mark.parametrize("way", [in_a_group, swallowed, wrapped])
def test_a_closing_engine_lets_a_step_finish_and_holds_the_next(database_url: str, way: Any) -> None:
    """The other branch gets nothing that it could make a result of: the workflow goes on elsewhere to its end."""
    course = Course()

    @step
    async def first() -> str:
        return await course.first()

    @step
    async def second() -> str:
        return "second"

    async def asking() -> list[str]:
        await course.is_closing()
        course.asked.set()
        found: list[str] = await way(second)
        return found

    @workflow
    async def two_branches() -> list[str]:
        kept = asyncio.create_task(first())
        found = await asyncio.create_task(asking())
        return [*found, await kept] if found == ["second"] else found

    engine = Engine(database_url, grace=PATIENCE).open()
    handle = engine.start(two_branches.options(workflow_id="w"))
    assert course.under_way.wait(PATIENCE)
    runner = engine._core._executor.runner  # type: ignore[union-attr]
    closing = threading.Thread(target=engine.close)
    closing.start()
    eventually(lambda: runner.is_closing)
    course.closing.set()
    closing.join(PATIENCE)
    with Engine(database_url, executes=False) as client:
        assert client.handle("w").status() is WorkflowStatus.QUEUED
        assert [one.key.rpartition("/")[2] for one in client.list_steps("w")] == ["first#0"]
    with Engine(database_url) as other:
        assert other.handle(handle.workflow_id).result(timeout=PATIENCE) == ["second", "first"]


def test_what_is_drawn_while_the_engine_closes_holds_it_up_no_longer_than_a_commit(database_url: str) -> None:
    """Of two steps that end in one turn, the first one's branch draws before the second one counts as over."""
    loops: list[asyncio.AbstractEventLoop] = []
    under_way, end = threading.Barrier(3), asyncio.Event()

    @step
    async def ends_with_another() -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.to_thread(under_way.wait, PATIENCE)
        await end.wait()

    async def drawing() -> float:
        await ends_with_another()
        drawn = durable.random()
        await ends_with_another()
        return drawn

    @workflow
    async def two_that_draw() -> list[float]:
        return [*await asyncio.gather(drawing(), drawing())]

    engine = Engine(database_url, grace=2 * PATIENCE).open()
    engine.start(two_that_draw.options(workflow_id="w"))
    under_way.wait(PATIENCE)
    runner = engine._core._executor.runner  # type: ignore[union-attr]
    closing = threading.Thread(target=engine.close)
    closing.start()
    eventually(lambda: runner.is_closing)
    loops[0].call_soon_threadsafe(end.set)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    kinds = rows(database_url, "SELECT kind FROM dbosflow.step ORDER BY seq")
    assert kinds == [("step",), ("step",), ("drawn",), ("drawn",)]


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_an_attempt_that_fails_while_the_engine_closes_counts(database_url: str, colour: str) -> None:
    """A step of two attempts runs twice, wherever: the failure goes on record before the engine lets go of its run."""
    under_way, go_on = threading.Event(), threading.Event()
    begun = 0

    def fail() -> None:
        nonlocal begun
        begun += 1
        under_way.set()
        assert go_on.wait(PATIENCE)
        msg = f"attempt {begun}"
        raise ValueError(msg)

    @step(name="failing", max_attempts=2, interval=0.01)
    async def failing_on_loop() -> None:
        await asyncio.to_thread(fail)

    failing_on_thread = step(name="failing", max_attempts=2, interval=0.01)(fail)

    @workflow
    async def failing_while_closing_on_loop() -> None:
        await failing_on_loop()

    @workflow
    def failing_while_closing_on_thread() -> None:
        failing_on_thread()

    target: Any = failing_while_closing_on_loop if colour == "async" else failing_while_closing_on_thread
    engine = Engine(database_url, grace=PATIENCE).open()
    engine.start(target.options(workflow_id="w"))
    assert under_way.wait(PATIENCE)
    runner = engine._core._executor.runner  # type: ignore[union-attr]
    closing = threading.Thread(target=engine.close)
    closing.start()
    eventually(lambda: runner.is_closing)
    go_on.set()
    closing.join(PATIENCE)
    with Engine(database_url, executes=False) as client:
        assert [one.kind for one in client.list_steps("w")] == ["attempt"]
    with Engine(database_url) as other, pytest.raises(ValueError, match="attempt 2"):
        other.handle("w").result(timeout=PATIENCE)
    assert begun == 2


def test_a_child_whose_start_is_committed_while_the_engine_closes_goes_on_elsewhere(database_url: str) -> None:
    """Its parent's engine does not begin it any more, and closes."""
    go_on = threading.Event()
    begun: list[str] = []

    @step
    async def seen(where: str) -> None:
        begun.append(where)

    @workflow
    async def child() -> str:
        begun.append("body")
        await seen("step")
        return "child"

    @workflow
    async def parent() -> str:
        await asyncio.to_thread(go_on.wait, PATIENCE)
        return await (await child.start_async()).result_async()

    engine = Engine(database_url).open()
    runner = engine._core._executor.runner  # type: ignore[union-attr]
    engine.start(parent.options(workflow_id="w"))
    closing = threading.Thread(target=engine.close, daemon=True)
    with psycopg.connect(database_url) as locking:
        locking.execute("SELECT FROM dbosflow.worker FOR UPDATE")  # a batch waits for its lease's row
        go_on.set()
        eventually(lambda: rows(database_url, WAITING_BATCHES))
        closing.start()
        eventually(lambda: runner.is_closing and len(runner) == 0)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert begun == []
    with Engine(database_url) as other:
        assert other.handle("w", parent).result(timeout=PATIENCE) == "child"
    assert begun == ["body", "step"]
