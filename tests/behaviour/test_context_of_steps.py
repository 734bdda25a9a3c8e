"""A step sees its caller's context variables and changes a copy: a replay, which runs no step, sees the same."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    for_each,
    for_each_async,
    run_step,
    run_step_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.testing import crash_at

if TYPE_CHECKING:
    from dbosflow import Engine

place: ContextVar[str] = ContextVar("place", default="nowhere")


@step
async def enter() -> str:
    seen = place.get()
    token = place.set("for a moment")
    await asyncio.sleep(0)
    place.reset(token)  # its own context is one and the same from beginning to end
    place.set("a step")
    await asyncio.gather(asyncio.sleep(0), change_in_a_task())
    assert place.get() == "a step"
    return seen


async def change_in_a_task() -> None:
    place.set("a task")


@step
def enter_on_thread() -> str:
    seen = place.get()
    place.set("a step")
    return seen


@step(max_attempts=2, interval=0)
async def enter_and_fail() -> None:
    assert place.get() == "the body"  # in the second attempt, too
    place.set("an attempt")
    await asyncio.sleep(0)
    raise ValueError("not yet")


@step
async def enter_for(_: int) -> None:
    place.set("a handler")


@workflow(inputs=["numbers"])
async def setting_on_loop() -> list[str]:
    place.set("the body")
    seen = [await enter(), await enter_on_thread.run_async(), await run_step_async("plain", enter_on_thread)]
    with pytest.raises(ValueError, match="not yet"):
        await enter_and_fail()
    await asyncio.gather(enter(), enter_on_thread.run_async())
    await write_stream_async("done", 1)
    await for_each_async("numbers", enter_for)
    return [*seen, place.get()]


@workflow(inputs=["numbers"])
def setting_on_thread() -> list[str]:
    place.set("the body")
    seen = [enter_on_thread(), enter.run(), run_step("plain", enter_on_thread)]
    with pytest.raises(ValueError, match="not yet"):
        enter_and_fail.run()
    write_stream("done", 1)
    for_each("numbers", enter_for)
    return [*seen, place.get()]


@pytest.mark.parametrize("flow", [setting_on_loop, setting_on_thread], ids=["on loop", "on thread"])
def test_context_variables_that_a_step_sets_are_not_seen_by_the_body(engine: Engine, flow: Any) -> None:
    """Live, and after a crash at its end, when all of its steps are on record."""
    with crash_at(engine, "w", "end"):
        handle = engine.start(flow.options(workflow_id="w"))
        engine.write_stream("w", "numbers", 1)
        engine.close_stream("w", "numbers")
        assert handle.result(timeout=60) == ["the body"] * 4


def test_a_cancellation_arrives_in_a_step_that_has_its_own_context(engine: Engine) -> None:
    """Where it waits, in its own context; what it then does is its own as well."""
    seen: list[str] = []
    began = asyncio.Event()

    @step
    async def waiting() -> None:
        place.set("a step")
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(place.get())
            raise

    @workflow
    async def flow() -> str:
        place.set("the body")
        task = asyncio.create_task(waiting())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return place.get()

    assert engine.run(flow) == "the body"
    assert seen == ["a step"]


@step
async def keep() -> None:
    place.set("a step")


@workflow
async def keeping() -> str:
    await keep()
    return place.get()


def test_the_caller_of_an_engine_keeps_its_context(engine: Engine) -> None:
    """Nor does a workflow's body leave anything behind in the context of the code that started it."""
    token = place.set("the caller")
    try:
        assert engine.run(keeping) == "nowhere"
        assert place.get() == "the caller"
    finally:
        place.reset(token)
