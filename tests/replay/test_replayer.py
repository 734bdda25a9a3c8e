"""A replay in memory, as ``dbosflow replay`` asks for it, says what a worker would."""

from __future__ import annotations

import asyncio

from dbosflow import Engine, step, workflow
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
