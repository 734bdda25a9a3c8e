"""Messages and events: a client here, a worker in another process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks import loop
from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from dbosflow import Engine, recv_async, set_event_async, workflow

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_UNTIMED = 3


@workflow
async def answering(rounds: int) -> None:
    """Answers each message by an event of its own."""
    for number in range(rounds):
        await recv_async("question", timeout=60)
        await set_event_async(f"answer-{number}", number)


def messages(job: Job) -> Figures:
    """From the send of a message to the event that the workflow sets on it, in another process."""
    return loop.run(_messages(job))


async def _messages(job: Job) -> Figures:
    took = []
    rounds = job.size + _UNTIMED
    with half(_work, job.url) as worker:
        async with Engine(job.url, executes=False) as engine:
            await asyncio.to_thread(worker.receive)
            workflow_id = (await engine.start_async(answering, rounds)).workflow_id
            for number in range(rounds):
                began = time.monotonic()
                await engine.send_async(workflow_id, number, "question")
                await engine.get_event_async(workflow_id, f"answer-{number}", timeout=60)
                took.append(time.monotonic() - began)
        worker.kill()
    return delays(took[_UNTIMED:])


def _work(pipe: Connection, url: str) -> None:
    with Engine(url, loop_factory=loop.factory()) as engine:
        pipe.send("ready")
        engine.run_worker("default")


SCENARIOS: dict[str, Scenario] = {"messages": messages}
