"""What is raised to end more than a function (an exit, a cancellation, an iteration) ends one step or one workflow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbosflow import Engine, step, workflow
from dbosflow.errors import StepFailedError, WorkflowFailedError
from tests.behaviour.interruption import Interruption

PATIENCE = 30.0


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
        engine.start(flow).result(timeout=10)
    assert "StopIteration" in f"{type(caught.value).__name__} {caught.value}"


class _ExitError(BaseException):
    """What some libraries end their own work with."""


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, _ExitError])
@pytest.mark.parametrize("where", ["step", "sync step", "body", "sync body"])
def test_a_workflow_that_exits_fails_alone(engine: Engine, kind: type[BaseException], where: str) -> None:
    """``sys.exit()`` somewhere in a step's library ends that workflow, not the engine and everybody else's work."""

    @step
    async def exiting_step() -> None:
        raise kind

    @step
    def exiting_sync_step() -> None:
        raise kind

    @workflow
    async def from_step() -> None:
        await exiting_step()

    @workflow
    async def from_sync_step() -> None:
        await exiting_sync_step.run_async()

    @workflow
    async def from_body() -> None:
        raise kind

    @workflow
    def from_sync_body() -> None:
        raise kind

    @workflow
    async def innocent() -> str:
        return "fine"

    flows = {"step": from_step, "sync step": from_sync_step, "body": from_body, "sync body": from_sync_body}
    flow: Any = flows[where]
    with pytest.raises((StepFailedError, WorkflowFailedError), match=kind.__name__):
        engine.start(flow).result(timeout=10)
    assert engine.start(innocent).result(timeout=10) == "fine"


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

    @workflow
    async def on_loop() -> str:
        for body in (awaiting_a_cancelled_task, raising):
            with pytest.raises(StepFailedError, match="CancelledError") as caught:
                await body.run_async()
            passes.append(str(caught.value))
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
