"""Steps and starts, in one process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dbos import DBOS

from benchmarks.gate import Gate, gates
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from benchmarks.peer.application import launched, launched_here

if TYPE_CHECKING:
    from collections.abc import Callable

_WARM_UP = 20


@DBOS.step()
async def echo(number: int) -> int:
    """An async step that costs nothing itself."""
    return number


@DBOS.step()
def echo_sync(number: int) -> int:
    """A sync one."""
    return number


@DBOS.workflow()
async def sequence(steps: int) -> float:
    """One step after the other; how long they took."""
    began = time.monotonic()
    for number in range(steps):
        await echo(number)
    return time.monotonic() - began


@DBOS.workflow()
def sequence_sync(steps: int) -> float:
    """The same, sync."""
    began = time.monotonic()
    for number in range(steps):
        echo_sync(number)
    return time.monotonic() - began


@DBOS.workflow()
async def gated_sequence(gate: str, steps: int) -> None:
    """One step after the other, once everybody is there."""
    await gates[gate].passed()
    for number in range(steps):
        await echo(number)


@DBOS.workflow()
async def nothing() -> None:
    """No step at all."""


def steps_async(job: Job) -> Figures:
    """Sequential steps of one async workflow."""
    return asyncio.run(_steps_async(job))


async def _steps_async(job: Job) -> Figures:
    async with launched_here(job.url):
        await sequence(_WARM_UP)
        with metered(job.url) as meter:
            seconds = await sequence(job.size)
        return meter.rate(job.size) | {"rate": job.size / seconds}


def steps_sync(job: Job) -> Figures:
    """Sequential steps of one sync workflow."""
    with launched(job.url):
        sequence_sync(_WARM_UP)
        with metered(job.url) as meter:
            seconds = sequence_sync(job.size)
        return meter.rate(job.size) | {"rate": job.size / seconds}


def concurrent_steps(workflows: int) -> Callable[[Job], Figures]:
    """Steps of so many concurrent async workflows; ``job.size`` steps in all."""

    async def run(job: Job) -> Figures:
        async with launched_here(job.url):
            await sequence(_WARM_UP)
            gate = gates["measured"] = Gate()
            each = max(1, job.size // workflows)
            starts = (DBOS.start_workflow_async(gated_sequence, "measured", each) for _ in range(workflows))
            handles = await asyncio.gather(*starts)
            await gate.gather(workflows)
            with metered(job.url) as meter:
                gate.open()
                await asyncio.gather(*(handle.get_result() for handle in handles))
            return meter.rate(workflows * each)

    return lambda job: asyncio.run(run(job))


def no_step_workflows(job: Job) -> Figures:
    """Workflows without a step, 1,000 at a time, from start to result."""
    return asyncio.run(_no_step_workflows(job))


async def _no_step_workflows(job: Job) -> Figures:
    async with launched_here(job.url):
        await asyncio.gather(*(nothing() for _ in range(_WARM_UP)))
        with metered(job.url) as meter:
            for _ in range(job.size // 1000):
                await asyncio.gather(*(nothing() for _ in range(1000)))
        return meter.rate(job.size)


def start_to_result(job: Job) -> Figures:
    """One workflow after the other, without a step."""
    return asyncio.run(_start_to_result(job))


async def _start_to_result(job: Job) -> Figures:
    took = []
    async with launched_here(job.url):
        for _ in range(_WARM_UP):
            await nothing()
        with metered(job.url) as meter:
            for _ in range(job.size):
                began = time.monotonic()
                await nothing()
                took.append(time.monotonic() - began)
    return delays(took) | meter.costs(job.size)


SCENARIOS: dict[str, Scenario] = {
    "steps_async": steps_async,
    "steps_sync": steps_sync,
    "steps_100": concurrent_steps(100),
    "steps_1000": concurrent_steps(1000),
    "relaxed_async": steps_async,  # it has no other steps
    "relaxed_sync": steps_sync,
    "relaxed_100": concurrent_steps(100),
    "no_step": no_step_workflows,
    "start_to_result": start_to_result,
}
