"""What a killed process leaves behind and how fast the next one goes on; what waits, and the memory it takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg
from dbos import DBOS

from benchmarks.gate import Gate
from benchmarks.halves import half
from benchmarks.killed import recovery, replay, sleeping
from benchmarks.peer.application import DONE, launched_here
from benchmarks.peer.workflows import echo
from benchmarks.polling import until_done

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.job import Figures, Job, Scenario

stuck: Gate | None = None
"""Set in a process that is to be killed: its workflows wait there when their steps are on record."""


@DBOS.workflow()
async def interrupted(steps: int) -> None:
    """Its steps, and then, where it is to be killed, a wait for that."""
    for number in range(steps):
        await echo(number)
    if stuck is not None:
        await stuck.passed()


@DBOS.workflow()
async def sleeper() -> None:
    """Sleeps for long."""
    await DBOS.sleep_async(3600)


def _recovered(url: str, workflows: int, steps: int) -> float:
    with psycopg.connect(url) as connection:
        row = connection.execute(DONE.encode()).fetchone()
    assert row is not None
    with half(_interrupt, url, workflows, steps) as killed:
        killed.receive()
        killed.kill()
    with half(_recover, url, row[0] + workflows) as successor:
        return float(successor.receive())


def _interrupt(pipe: Connection, url: str, workflows: int, steps: int) -> None:
    asyncio.run(_run_until_stuck(pipe, url, workflows, steps))


async def _run_until_stuck(pipe: Connection, url: str, workflows: int, steps: int) -> None:
    global stuck  # noqa: PLW0603 (a word to the workflows of this process)
    stuck = Gate()
    async with launched_here(url):
        await asyncio.gather(*(DBOS.start_workflow_async(interrupted, steps) for _ in range(workflows)))
        await stuck.gather(workflows)
        pipe.send("stuck")
        await stuck.passed()


def _recover(pipe: Connection, url: str, expected: int) -> None:
    asyncio.run(_go_on(pipe, url, expected))


async def _go_on(pipe: Connection, url: str, expected: int) -> None:
    began = time.monotonic()
    async with launched_here(url):
        await until_done(url, DONE, expected)
        pipe.send(time.monotonic() - began)


def memory(job: Job) -> Figures:
    """What a sleeping workflow takes."""
    return asyncio.run(_memory(job))


async def _memory(job: Job) -> Figures:
    async with launched_here(job.url):
        return await sleeping(lambda: DBOS.start_workflow_async(sleeper), job.size)


SCENARIOS: dict[str, Scenario] = {"recovery": recovery(_recovered), "replay": replay(_recovered), "memory": memory}
