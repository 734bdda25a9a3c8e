"""A run with one branch replays at the speed of a dictionary: no turns, no event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._runtime.execution.drivers import LoopDriver
from dbosflow._runtime.execution.environment import RunEnvironment
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.run import Run
from dbosflow._runtime.execution.scope import Entered
from dbosflow._runtime.execution.thread_driver import ThreadDriver
from dbosflow._runtime.process.thread_pool import ThreadPool
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine
from dbosflow.config import Settings
from dbosflow.definitions import WorkflowDef
from tests.ports import EndlessLease, NoEngine
from tests.replay.model import Trace, execute, history

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 200


async def loop_of_steps(trace: Trace) -> list[str]:
    """Steps and stream writes, one after the other."""
    outcomes = []
    for number in range(STEPS):
        await trace.write(str(number))
        outcomes.append(await trace.step("work", str(number)))
    return outcomes


def test_a_replay_of_one_branch_never_suspends() -> None:
    """All of it is done by the first ``send``; only a fast writer yields control to the loop."""
    live = execute(loop_of_steps, seed=0)

    async def drive() -> int:
        run = _run(live.commits[:-1])
        trace = Trace(0)
        with Entered(run.root):
            coroutine = BranchCoroutine(loop_of_steps(trace), run.root)
            suspensions = sum(1 for _ in _until_done(coroutine))
        assert trace.bodies == []
        assert trace.swapped == []
        assert run.sequencer is None
        return suspensions

    assert asyncio.run(drive()) == STEPS // 64


def test_recorded_steps_and_sleeps_do_not_suspend_at_all() -> None:
    """A thousand recorded steps take one ``send``."""

    async def program(trace: Trace) -> str:
        for number in range(500):
            await trace.step("work", str(number), takes=0)
            await trace.sleep(0)
        return "done"

    live = execute(program, seed=0)

    async def drive() -> None:
        run = _run(live.commits[:-1])
        with Entered(run.root), pytest.raises(StopIteration, match="done"):
            BranchCoroutine(program(Trace(0)), run.root).send(None)

    asyncio.run(drive())


def _until_done(coroutine: BranchCoroutine) -> Iterator[None]:
    """Once for each suspension."""
    with suppress(StopIteration):
        while True:
            coroutine.send(None)
            yield


def _run(commits: Any) -> Run:
    """A run that would notice if it wrote anything."""

    def submit(run: Run) -> None:
        raise AssertionError(run)

    threads = ThreadPool(1, "test")
    drivers = LoopDriver(threads), ThreadDriver(asyncio.get_running_loop(), threads)
    return Run(
        RunEnvironment(EndlessLease(), Settings(), submit, *drivers, engine=NoEngine(), running_code=RunningCode()),
        Launch("w", WorkflowDef(loop_of_steps, "program"), "{}", (), epoch=2),
        history(commits),
    )
