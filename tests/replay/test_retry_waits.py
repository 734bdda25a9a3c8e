"""A wait that is on record ends when the record says, whoever waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import run_step_async
from dbosflow.errors import RetryAfter
from tests.replay.model import execute
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Trace


@pytest.mark.parametrize("in_branches", [False, True])
def test_a_crash_does_not_make_the_next_attempt_earlier(*, in_branches: bool) -> None:
    """The policy's own wait is a millisecond: after a crash, only the record knows what the failure asked for."""
    began: list[float] = []

    async def refused() -> str:
        began.append(asyncio.get_running_loop().time())
        if len(began) == 1:
            raise RetryAfter(100)
        return "done"

    async def program(run: Trace) -> Any:
        call = run_step_async(refused, max_attempts=2, interval=0.001)
        return (await asyncio.gather(call))[0] if in_branches else await call

    live = execute(program, seed=0, delay=0)
    assert live.result == 'succeeded: "done"'
    assert began[1] - began[0] >= 100
    attempt = next(number for number, commit in enumerate(live.commits) if commit.records)
    began[:] = began[:1]
    again = execute(program, seed=REPLAYED, commits=live.commits[: attempt + 1], delay=0)
    assert again.result == live.result
    assert began[1] > 99, "a hundred seconds of virtual time, less what the test has taken"
