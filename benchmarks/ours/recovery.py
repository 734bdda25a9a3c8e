"""What a killed process leaves behind and how fast the next one goes on; what waits, and the memory it takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks import loop
from benchmarks.gate import Gate
from benchmarks.halves import half
from benchmarks.killed import recovery, replay, sleeping
from benchmarks.ours.queues import DONE
from benchmarks.ours.workflows import echo
from benchmarks.polling import until_done
from dbosflow import Engine, sleep_async, workflow

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.job import Figures, Job, Scenario

stuck: Gate | None = None
"""Set in a process that is to be killed: its workflows wait there when their steps are on record."""


@workflow
async def interrupted(steps: int) -> None:
    """Its steps, and then, where it is to be killed, a wait for that."""
    for number in range(steps):
        await echo(number)
    if stuck is not None:
        await stuck.passed()


@workflow
async def sleeper() -> None:
    """Sleeps for long."""
    await sleep_async(3600)


def _recovered(url: str, workflows: int, steps: int) -> float:
    with half(_interrupt, url, workflows, steps) as killed:
        done = killed.receive()
        killed.kill()
    with half(_recover, url, done + workflows) as successor:
        return float(successor.receive())


def _interrupt(pipe: Connection, url: str, workflows: int, steps: int) -> None:
    loop.run(_run_until_stuck(pipe, url, workflows, steps))


async def _run_until_stuck(pipe: Connection, url: str, workflows: int, steps: int) -> None:
    global stuck  # noqa: PLW0603 (a word to the workflows of this process)
    stuck = Gate()
    async with Engine(url) as engine:
        done = sum(info.status == "succeeded" for info in await engine.list_workflows_async())
        await asyncio.gather(*(engine.start_async(interrupted, steps) for _ in range(workflows)))
        await stuck.gather(workflows)
        pipe.send(done)
        await stuck.passed()


def _recover(pipe: Connection, url: str, expected: int) -> None:
    loop.run(_go_on(pipe, url, expected))


async def _go_on(pipe: Connection, url: str, expected: int) -> None:
    began = time.monotonic()
    async with Engine(url):
        await until_done(url, DONE, expected)
        pipe.send(time.monotonic() - began)


def memory(job: Job) -> Figures:
    """What a sleeping workflow takes."""
    return loop.run(_memory(job))


async def _memory(job: Job) -> Figures:
    async with Engine(job.url, grace=0.0) as engine:
        return await sleeping(lambda: engine.start_async(sleeper), job.size)


SCENARIOS: dict[str, Scenario] = {"recovery": recovery(_recovered), "replay": replay(_recovered), "memory": memory}
