"""``dbosflow.durable``: in a body its values survive a crash; anywhere else they are the plain ones."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, durable, sleep, step, workflow, write_stream_async
from dbosflow.errors import BranchError
from dbosflow.testing import MovableClock
from tests.behaviour.tables import records, rows

if TYPE_CHECKING:
    from tests.behaviour.gate import Gate


def test_in_a_body_they_are_on_record_and_in_a_step_they_are_not(engine: Engine, database_url: str) -> None:
    @step
    def in_step() -> list[str]:
        return [str(durable.uuid4()), str(durable.now()), str(durable.random())]

    @workflow
    def flow() -> list[str]:
        in_step()
        return [str(durable.uuid4()), str(durable.now()), str(durable.random()), str(durable.Random().random())]

    engine.run(flow.options(workflow_id="w"))
    assert records(database_url, "w") == [
        ("in_step#0", "step"),
        *((f"{name}#0", "drawn") for name in ("uuid4", "now", "random", "Random")),
    ]


def test_outside_they_are_the_plain_ones() -> None:
    assert durable.uuid4() != durable.uuid4()
    assert durable.now().tzinfo is UTC
    assert 0 <= durable.random() < 1
    assert durable.Random().random() != durable.Random().random()
    assert durable.Random(5).random() == random.Random(5).random()


def test_a_copied_generator_goes_on_alike_and_draws_no_seed() -> None:
    generator = durable.Random()
    for other in (copy.copy(generator), copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        state = generator.getstate()
        assert other.random() == generator.random()
        generator.setstate(state)


async def test_the_next_owner_gets_them_and_the_step_saw_no_others(database_url: str, gate: Gate) -> None:
    """The step began with what is on record, though its worker never recorded the step itself."""
    seen: list[list[Any]] = []
    began = asyncio.Event()

    @step
    async def shown(drawn: list[Any]) -> list[Any]:
        seen.append(drawn)
        began.set()
        await gate.passed()
        return drawn

    @workflow
    async def flow() -> list[Any]:
        generator = durable.Random()
        drawn = [str(durable.uuid4()), str(durable.now()), durable.random(), generator.random()]
        await write_stream_async("drawn", drawn)
        return [drawn, await shown(drawn)]

    async with Engine(database_url, grace=0) as engine:
        handle = await engine.start_async(flow)
        await began.wait()
    gate.open()
    async with Engine(database_url) as engine:
        drawn, shown_again = await engine.handle(handle.workflow_id).result_async()
        values = [item.value async for item in engine.read_stream_async(handle.workflow_id, "drawn") if not item.closed]
    assert seen == [drawn, drawn] == [shown_again, *values]


def test_a_recorded_value_that_does_not_load_parks_the_workflow(database_url: str) -> None:
    """As any other record that today's code cannot take."""

    @workflow
    def flow() -> str:
        drawn = str(durable.now())
        sleep(0.001)
        return drawn

    with Engine(database_url) as engine:
        engine.run(flow.options(workflow_id="w"))
    rows(database_url, "UPDATE dbosflow.step SET output = '\"never\"' WHERE kind = 'drawn' RETURNING 1")
    rows(
        database_url,
        "UPDATE dbosflow.workflow SET status = 'queued', epoch = 2, ended_at = NULL, output = NULL RETURNING 1",
    )
    with Engine(database_url) as engine, pytest.raises(Exception, match="takes the time at key 'now#0'"):
        engine.handle("w").result()


def test_a_clock_of_a_test_moves_the_time_too(engine: Engine) -> None:
    """A durable sleep that a test skips has passed for ``now``, too."""
    MovableClock(skips=True).install(engine)

    @workflow
    def flow() -> list[datetime]:
        began = durable.now()
        sleep(timedelta(days=1))
        return [began, durable.now()]

    began, ended = engine.run(flow)
    assert ended - began >= timedelta(days=1)
    assert began.utcoffset() == timedelta(0)


async def test_code_that_is_no_branch_is_refused(database_url: str) -> None:
    """Its place in the order of a branch would be timing."""
    async with Engine(database_url) as engine:

        @workflow
        async def flow() -> str:
            with pytest.raises(BranchError, match=r"durable\.now\(\) was called from a callback"):
                await asyncio.to_thread(durable.now)
            return "refused"

        assert await engine.run_async(flow) == "refused"
