"""Regions of a body that is the only thread of control: what is on record in one of them was done before the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import branch
from tests.replay.model import execute
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Trace


@pytest.mark.parametrize("stray", ["live only", "replay only", "never"])
@pytest.mark.parametrize("last", ["sleep", "flush"])
def test_a_stray_task_makes_no_difference_to_what_ends_a_region(last: str, stray: str) -> None:
    """With one, the run has turns: a sleep and a flush leave a record more, which the region's own cannot tell from."""

    async def program(run: Trace) -> Any:
        if stray != "never" and (stray == "live only") == (run.seed < REPLAYED):
            await asyncio.create_task(asyncio.sleep(0))  # as a library makes one now and then
        for region in ("first", "second"):
            with branch(region):
                await run.step("in it", "")
                await run.write(region)
                await (run.sleep(0.001) if last == "sleep" else run.flush())
        return await run.step("behind", "")

    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        assert (run.result, run.stream) == (live.result, live.stream), crash
        again = execute(program, seed=0, commits=run.commits[:-1])
        assert (again.result, again.stream, again.trace.bodies) == (live.result, live.stream, [])
