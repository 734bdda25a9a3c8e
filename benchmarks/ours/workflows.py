"""Steps and starts, in one process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks import loop
from benchmarks.gate import Gate, gates
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from dbosflow import Engine, step, workflow

if TYPE_CHECKING:
    from collections.abc import Callable

_WARM_UP = 50


@step
async def echo(number: int) -> int:
    """An async step that costs nothing itself."""
    return number


@step
def echo_sync(number: int) -> int:
    """A sync one."""
    return number


@workflow
async def sequence(steps: int) -> float:
    """One step after the other; how long they took."""
    began = time.monotonic()
    for number in range(steps):
        await echo(number)
    return time.monotonic() - began


@workflow
def sequence_sync(steps: int) -> float:
    """The same, sync."""
    began = time.monotonic()
    for number in range(steps):
        echo_sync(number)
    return time.monotonic() - began


@workflow
async def gated_sequence(gate: str, steps: int) -> None:
    """One step after the other, once everybody is there."""
    await gates[gate].passed()
    for number in range(steps):
        await echo(number)


@workflow
async def nothing() -> None:
    """No step at all."""


def steps_async(job: Job) -> Figures:
    """Sequential steps of one async workflow."""
    return loop.run(_steps_async(job))


async def _steps_async(job: Job) -> Figures:
    async with Engine(job.url) as engine:
        await engine.run_async(sequence, _WARM_UP)
        with metered(job.url) as meter:
            seconds = await engine.run_async(sequence, job.size)
        return meter.rate(job.size) | {"rate": job.size / seconds}


def steps_sync(job: Job) -> Figures:
    """Sequential steps of one sync workflow."""
    with Engine(job.url, loop_factory=loop.factory()) as engine:
        engine.run(sequence_sync, _WARM_UP)
        with metered(job.url) as meter:
            seconds = engine.run(sequence_sync, job.size)
        return meter.rate(job.size) | {"rate": job.size / seconds}


def concurrent_steps(workflows: int) -> Callable[[Job], Figures]:
    """Steps of so many concurrent async workflows; ``job.size`` steps in all."""

    async def run(job: Job) -> Figures:
        async with Engine(job.url) as engine:
            await _through_gate(engine, "warm-up", workflows, 1, job.url)
            each = max(1, job.size // workflows)
            return await _through_gate(engine, "measured", workflows, each, job.url)

    return lambda job: loop.run(run(job))


async def _through_gate(engine: Engine, name: str, workflows: int, each: int, url: str) -> Figures:
    gate = gates[name] = Gate()
    handles = await asyncio.gather(*(engine.start_async(gated_sequence, name, each) for _ in range(workflows)))
    await gate.gather(workflows)
    with metered(url) as meter:
        gate.open()
        await asyncio.gather(*(handle.result_async() for handle in handles))
    return meter.rate(workflows * each)


def no_step_workflows(job: Job) -> Figures:
    """Workflows without a step, 1,000 at a time, from start to result."""
    return loop.run(_no_step_workflows(job))


async def _no_step_workflows(job: Job) -> Figures:
    async with Engine(job.url) as engine:
        await asyncio.gather(*(engine.run_async(nothing) for _ in range(200)))
        with metered(job.url) as meter:
            for _ in range(job.size // 1000):
                await asyncio.gather(*(engine.run_async(nothing) for _ in range(1000)))
        return meter.rate(job.size)


def start_to_result(job: Job) -> Figures:
    """One workflow after the other, without a step."""
    return loop.run(_start_to_result(job))


async def _start_to_result(job: Job) -> Figures:
    took = []
    async with Engine(job.url) as engine:
        for _ in range(_WARM_UP):
            await engine.run_async(nothing)
        with metered(job.url) as meter:
            for _ in range(job.size):
                began = time.monotonic()
                await engine.run_async(nothing)
                took.append(time.monotonic() - began)
    return delays(took) | meter.costs(job.size)


SCENARIOS: dict[str, Scenario] = {
    "steps_async": steps_async,
    "steps_sync": steps_sync,
    "steps_100": concurrent_steps(100),
    "steps_1000": concurrent_steps(1000),
    "no_step": no_step_workflows,
    "start_to_result": start_to_result,
}
