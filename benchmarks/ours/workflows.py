"""Steps and starts, in one process."""

from __future__ import annotations

import asyncio
import time

from benchmarks import loop
from benchmarks.gate import Gate, gates
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from dbosflow import Engine, step, workflow

_WARM_UP = 50


@step
async def echo(number: int) -> int:
    """An async step that costs nothing itself."""
    return number


@step
def echo_sync(number: int) -> int:
    """A sync one."""
    return number


@step(relaxed=True)
async def echo_relaxed(number: int) -> int:
    """An async step for whose commit the workflow does not wait."""
    return number


@step(relaxed=True)
def echo_relaxed_sync(number: int) -> int:
    """A sync one."""
    return number


@workflow
async def sequence(steps: int, relaxed: bool = False) -> float:  # noqa: FBT001, FBT002 (an argument as JSON)
    """One step after the other; how long they took."""
    act = echo_relaxed if relaxed else echo
    began = time.monotonic()
    for number in range(steps):
        await act(number)
    return time.monotonic() - began


@workflow
def sequence_sync(steps: int, relaxed: bool = False) -> float:  # noqa: FBT001, FBT002
    """The same, sync."""
    act = echo_relaxed_sync if relaxed else echo_sync
    began = time.monotonic()
    for number in range(steps):
        act(number)
    return time.monotonic() - began


@workflow
async def gated_sequence(gate: str, steps: int, relaxed: bool = False) -> None:  # noqa: FBT001, FBT002
    """One step after the other, once everybody is there."""
    await gates[gate].passed()
    act = echo_relaxed if relaxed else echo
    for number in range(steps):
        await act(number)


@workflow
async def nothing() -> None:
    """No step at all."""


def steps_async(*, relaxed: bool = False) -> Scenario:
    """Sequential steps of one async workflow."""

    async def run(job: Job) -> Figures:
        async with Engine(job.url) as engine:
            await engine.run_async(sequence, _WARM_UP, relaxed)
            with metered(job.url) as meter:
                seconds = await engine.run_async(sequence, job.size, relaxed)
            return meter.rate(job.size) | ({} if relaxed else {"rate": job.size / seconds})

    return lambda job: loop.run(run(job))


def steps_sync(*, relaxed: bool = False) -> Scenario:
    """Sequential steps of one sync workflow."""

    def run(job: Job) -> Figures:
        with Engine(job.url, loop_factory=loop.factory()) as engine:
            engine.run(sequence_sync, _WARM_UP, relaxed)
            with metered(job.url) as meter:
                seconds = engine.run(sequence_sync, job.size, relaxed)
            return meter.rate(job.size) | ({} if relaxed else {"rate": job.size / seconds})

    return run


def concurrent_steps(workflows: int, *, relaxed: bool = False) -> Scenario:
    """Steps of so many concurrent async workflows; ``job.size`` steps in all."""

    async def run(job: Job) -> Figures:
        async with Engine(job.url) as engine:
            await _through_gate(engine, "warm-up", workflows, 1, job.url, relaxed=relaxed)
            each = max(1, job.size // workflows)
            return await _through_gate(engine, "measured", workflows, each, job.url, relaxed=relaxed)

    return lambda job: loop.run(run(job))


async def _through_gate(engine: Engine, name: str, workflows: int, each: int, url: str, *, relaxed: bool) -> Figures:
    gate = gates[name] = Gate()
    starts = (engine.start_async(gated_sequence, name, each, relaxed) for _ in range(workflows))
    handles = await asyncio.gather(*starts)
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
    "steps_async": steps_async(),
    "steps_sync": steps_sync(),
    "steps_100": concurrent_steps(100),
    "steps_1000": concurrent_steps(1000),
    "relaxed_async": steps_async(relaxed=True),
    "relaxed_sync": steps_sync(relaxed=True),
    "relaxed_100": concurrent_steps(100, relaxed=True),
    "no_step": no_step_workflows,
    "start_to_result": start_to_result,
}
