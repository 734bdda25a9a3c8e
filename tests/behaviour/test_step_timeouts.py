"""An attempt of an async step that takes longer than its timeout is cancelled, and has failed."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from dbosflow import Engine, for_each, run_step_async, step, workflow, write_stream_async
from dbosflow.errors import ConfigurationError, DefinitionError, StepTimeoutError
from tests.behaviour.tables import records

FOR_EVER = 1000.0
SHORT = 0.02


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_an_attempt_that_takes_too_long_is_cancelled_and_tried_again(
    engine: Engine, database_url: str, colour: str
) -> None:
    """The next one may be faster; what the first wrote is rolled back, and its cleanup ran."""
    ends: list[str] = []

    @step(timeout=SHORT, max_attempts=2, interval=0)
    async def slow_once() -> str:
        await write_stream_async("out", len(ends))
        try:
            if not ends:
                await asyncio.sleep(FOR_EVER)
        finally:
            ends.append("cleaned up")
        return "done"

    @workflow
    async def flow_async() -> str:
        return await slow_once()

    @workflow
    def flow_sync() -> str:
        return slow_once.run()

    flow: Any = flow_async if colour == "async" else flow_sync
    assert engine.run(flow.options(workflow_id="w")) == "done"
    assert records(database_url, "w") == [("slow_once#0@1.1", "attempt"), ("slow_once#0", "step")]
    attempt = engine.list_steps("w")[0]
    assert attempt.error is not None
    assert attempt.error["type"].endswith("StepTimeoutError")
    assert ends == ["cleaned up"] * 2
    assert engine.read_stream("w", "out", view="committed").read_all()[0] == [1]


def test_the_last_attempt_has_failed_with_a_typed_error(engine: Engine) -> None:
    """A ``TimeoutError`` as well, live and for whoever waits; it names the step and the time."""

    @step(timeout=SHORT)
    async def slow() -> None:
        await asyncio.sleep(FOR_EVER)

    @workflow
    async def flow() -> str:
        try:
            await slow()
        except TimeoutError as error:
            return f"{type(error).__name__}: {error}"
        return "in time"

    assert (
        engine.run(flow) == "StepTimeoutError: attempt 1.1 of step 'slow#0' took longer than 0.02 s, the step's timeout"
    )


def test_a_timeout_of_the_bodys_own_is_not_the_steps(engine: Engine) -> None:
    """Only the engine's clock makes the engine's error."""

    @step(timeout=FOR_EVER)
    async def slow() -> None:
        async with asyncio.timeout(SHORT):
            await asyncio.sleep(FOR_EVER)

    @workflow
    async def flow() -> str:
        try:
            await slow()
        except TimeoutError as error:
            return type(error).__name__
        return "in time"

    assert engine.run(flow) == "TimeoutError"


def test_a_cancelled_sibling_is_no_timeout(engine: Engine) -> None:
    """The program's own cancellation goes on record as ever."""

    @step(timeout=FOR_EVER)
    async def slow() -> None:
        await asyncio.sleep(FOR_EVER)

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(SHORT):
                await slow()
        except TimeoutError as error:
            return type(error).__name__
        return "in time"

    assert engine.run(flow) == "TimeoutError"


def test_a_sync_function_is_refused_with_the_reason() -> None:
    def blocking() -> None: ...

    for made in (lambda: step(timeout=1)(blocking), lambda: run_step_async(blocking, timeout=1)):
        with pytest.raises(DefinitionError, match="is a sync function: its thread cannot be ended"):
            made()


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan")])
def test_a_timeout_is_a_positive_number(timeout: Any) -> None:
    async def quick() -> None: ...

    with pytest.raises(ConfigurationError, match="a step's timeout="):
        step(timeout=timeout)(quick)


def test_wrapped_functions_and_loops_have_timeouts_too(engine: Engine) -> None:
    """A sync wrapper's awaitable, a plain function's step, and each item of a loop."""

    async def slow(number: int) -> int:
        await asyncio.sleep(FOR_EVER if number else 0)
        return number

    @functools.wraps(slow)
    def wrapper(number: int) -> Any:
        return slow(number)

    wrapped = step(timeout=SHORT, name="wrapped")(wrapper)
    item = step(timeout=SHORT, name="item")(slow)

    @workflow
    async def flow() -> list[str]:
        found = []
        for call in (wrapped.run_async(1), run_step_async(slow, 1, timeout=SHORT)):
            try:
                await call
            except StepTimeoutError as error:
                found.append(str(error).partition("'")[2].partition("'")[0])
        return found

    assert engine.run(flow.options(workflow_id="w")) == ["wrapped#0", "slow#0"]

    @workflow(inputs=["in"])
    def loop() -> list[int]:
        done = for_each("in", item, on_error="skip")
        return [done.count, done.failed]

    handle = engine.start(loop.options(workflow_id="l"))
    for number in range(2):
        engine.write_stream("l", "in", number)
    engine.close_stream("l", "in")
    assert handle.result() == [1, 1]
