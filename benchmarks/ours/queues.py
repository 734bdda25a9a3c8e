"""Queues: a client here, a worker in another process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks import loop
from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from benchmarks.ours.workflows import nothing
from benchmarks.polling import until_done
from dbosflow import Engine, Queue, workflow

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LIMITED, LIMIT = "limited", 10
"""A queue, and how many of it run at a time."""
TEXT = "some words of an argument"

DONE = "SELECT count(*) FROM dbosflow.workflow WHERE status = 'succeeded'"


@workflow
async def with_arguments(number: int, text: str) -> None:
    """Nobody runs it."""


def throughput(job: Job) -> Figures:
    """Enqueues, runs and ends so many workflows; one worker process."""
    return loop.run(_throughput(job))


async def _throughput(job: Job) -> Figures:
    with half(_work, job.url) as worker:
        async with Engine(job.url, executes=False) as engine:
            await asyncio.to_thread(worker.receive)
            await (await engine.start_async(nothing)).result_async()
            with metered(job.url) as meter:
                await asyncio.gather(*(engine.start_async(nothing) for _ in range(job.size)))
                await until_done(job.url, DONE, job.size + 1)
        worker.kill()
    return meter.rate(job.size)


def limited(job: Job) -> Figures:
    """The same on a queue of which ten run at a time, in all workers; one worker process."""
    return loop.run(_limited(job))


async def _limited(job: Job) -> Figures:
    async with Engine(job.url, executes=False) as engine:
        await engine.queues.apply_async(Queue(LIMITED, concurrency=LIMIT))
        with half(_work_limited, job.url) as worker:
            await asyncio.to_thread(worker.receive)
            target = nothing.options(queue=LIMITED)
            await (await engine.start_async(target)).result_async()
            with metered(job.url) as meter:
                await asyncio.gather(*(engine.start_async(target) for _ in range(job.size)))
                await until_done(job.url, DONE, job.size + 1)
            worker.kill()
    return meter.rate(job.size)


def idle(job: Job) -> Figures:
    """From the enqueue to the result, on a queue where nothing else waits."""
    return loop.run(_idle(job))


async def _idle(job: Job) -> Figures:
    took = []
    with half(_work, job.url) as worker:
        async with Engine(job.url, executes=False) as engine:
            await asyncio.to_thread(worker.receive)
            for _ in range(job.size + 3):
                await asyncio.sleep(0.05)
                began = time.monotonic()
                await (await engine.start_async(nothing)).result_async()
                took.append(time.monotonic() - began)
        worker.kill()
    return delays(took[3:])


def start_many(job: Job) -> Figures:
    """Enqueues so many workflows in one call; nobody runs them."""
    with Engine(job.url, executes=False) as engine:
        engine.start_many(with_arguments, [(-1, TEXT)])
        with metered(job.url) as meter:
            engine.start_many(with_arguments, ((number, TEXT) for number in range(job.size)), on_started=len)
    return meter.rate(job.size)


def _work(pipe: Connection, url: str) -> None:
    with Engine(url, loop_factory=loop.factory()) as engine:
        pipe.send("ready")
        engine.run_worker("default", concurrency=200)


def _work_limited(pipe: Connection, url: str) -> None:
    with Engine(url, loop_factory=loop.factory()) as engine:
        pipe.send("ready")
        engine.run_worker(LIMITED, concurrency=200)


SCENARIOS: dict[str, Scenario] = {
    "queue": throughput,
    "queue_limited": limited,
    "queue_limited_tuned": limited,
    "queue_idle": idle,
    "start_many": start_many,
}
