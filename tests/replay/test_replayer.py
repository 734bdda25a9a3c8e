"""A replay in memory, as ``dbosflow replay`` asks for it, says what a worker would."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg

from dbosflow import Engine, read_input_async, step, transaction, workflow, write_stream_async
from dbosflow.types import WorkflowStatus
from tests.behaviour.interruption import Interruption


@step
async def one_of_three(number: int) -> int:
    return number


def test_a_contradiction_is_said_whatever_other_branches_wait_for(database_url: str) -> None:
    """It cancels them at operations that are on record: nothing of that is new, and nothing halts there."""
    begun = Interruption()

    @workflow
    async def losing_a_step() -> None:
        async def branch(number: int) -> None:
            if not (begun.over and number == 0):
                await one_of_three(number)
            await begun.point_async()

        await asyncio.gather(*map(branch, range(3)))

    workflow_id = begun.first_pass(database_url, losing_a_step)
    with Engine(database_url, executes=False) as engine:
        for _ in range(5):
            result = engine._host.call("replay", engine._core.replay, workflow_id, 30.0)
            assert result.ending is not None
            assert result.ending.status is WorkflowStatus.BLOCKED
            assert "has not asked for what comes next" in (result.ending.error or "")
            assert result.unknown == []


@workflow
async def replayed_child() -> None:
    """Ends at once."""


def test_a_cancellation_that_is_not_on_record_halts_the_replay(database_url: str) -> None:
    """It cancels no workflow, and the code sees nothing that it would not see in a worker."""
    begun = Interruption()

    @workflow
    async def cancelling_its_child() -> None:
        child = await replayed_child.start_async()
        await child.result_async()
        await begun.point_async()
        await child.cancel_async(children=False)

    workflow_id = begun.first_pass(database_url, cancelling_its_child)
    with Engine(database_url, executes=False) as engine:
        result = engine._host.call("replay", engine._core.replay, workflow_id, 30.0)
        assert result.ending is None
        assert result.unknown == ["cancel#0"]


def test_an_input_is_one_in_a_replay_too(database_url: str) -> None:
    """The keys are those of the start: the body reads what a worker reads."""
    begun = Interruption()

    @workflow(inputs=["replayed chat"])
    async def reading_its_input() -> str:
        async for item in read_input_async("replayed chat", type=str):
            await begun.point_async()
            return item.value
        return ""

    with Engine(database_url, grace=0.0) as engine:
        workflow_id = engine.start(reading_its_input).workflow_id
        engine.write_stream(workflow_id, "replayed chat", "hello")
        assert begun.reached()
    begun.let_through()
    with Engine(database_url, executes=False) as engine:
        result = engine._host.call("replay", engine._core.replay, workflow_id, 30.0)
    assert result.ending is not None
    assert (result.ending.status, result.ending.output) == (WorkflowStatus.SUCCEEDED, '"hello"')
    assert result.unknown == []


@transaction
async def replayed_transaction(connection: psycopg.AsyncConnection, number: int) -> int:
    await connection.execute("INSERT INTO replayed_rows VALUES (%s)", (number,))
    await write_stream_async("out", number)
    if number == 2:
        msg = "no"
        raise ValueError(msg)
    return 10 * number


def test_a_replay_runs_no_transaction(database_url: str) -> None:
    """Their outcomes are taken from the records, of failed ones, too; one that is new halts the replay."""
    begun = Interruption()

    @workflow
    async def with_transactions() -> list[int]:
        found = [await replayed_transaction(1)]
        with suppress(ValueError):
            await replayed_transaction(2)
        await begun.point_async()
        return [*found, await replayed_transaction(3)]

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE replayed_rows (number integer)")
        workflow_id = begun.first_pass(database_url, with_transactions)
        with Engine(database_url, executes=False) as engine:
            result = engine._host.call("replay", engine._core.replay, workflow_id, 30.0)
        assert (result.ending, result.unknown) == (None, ["replayed_transaction#2"])
        assert connection.execute("SELECT number FROM replayed_rows").fetchall() == [(1,)]
