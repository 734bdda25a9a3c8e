"""Queues: a client here, a worker in another process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks import loop
from benchmarks.at_once import KEYS, diary, two_workers
from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from benchmarks.ours.workflows import nothing
from benchmarks.polling import until_done
from dbosflow import Engine, Queue, workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from multiprocessing.connection import Connection

    from dbosflow.workflows import WorkflowSpec

LIMITED, LIMIT, PARTITIONS = "limited", 10, 1000
"""A queue, how many of it run at a time, and in how many partitions it is."""
TEXT = "some words of an argument"

DONE = "SELECT count(*) FROM dbosflow.workflow WHERE status = 'succeeded'"


@workflow
async def with_arguments(number: int, text: str) -> None:
    """Nobody runs it."""


@workflow
async def busy(key: str) -> None:
    """Work whose time is written down."""
    await diary.busy(key)


def throughput(job: Job) -> Figures:
    """Enqueues, runs and ends so many workflows; one worker process."""
    return loop.run(_throughput(job, _each))


def many(job: Job) -> Figures:
    """The same, enqueued in one call."""
    return loop.run(_throughput(job, _in_one_call))


async def _each(engine: Engine, count: int) -> None:
    await asyncio.gather(*(engine.start_async(nothing) for _ in range(count)))


async def _in_one_call(engine: Engine, count: int) -> None:
    await engine.start_many_async(nothing, [()] * count)


async def _throughput(job: Job, enqueue: Callable[[Engine, int], Coroutine[Any, Any, None]]) -> Figures:
    with half(_work, job.url) as worker:
        async with Engine(job.url, executes=False) as engine:
            await asyncio.to_thread(worker.receive)
            await (await engine.start_async(nothing)).result_async()
            with metered(job.url) as meter:
                await enqueue(engine, job.size)
                await until_done(job.url, DONE, job.size + 1)
        worker.kill()
    return meter.rate(job.size)


def limited(job: Job) -> Figures:
    """The same on a queue of which ten run at a time, in all workers; one worker process."""
    return loop.run(_limited(job, Queue(LIMITED, concurrency=LIMIT), lambda _: nothing.options(queue=LIMITED)))


def partitioned(job: Job) -> Figures:
    """The same on a queue of 1,000 partitions, of which each has one that runs at a time; one worker process."""
    return loop.run(_limited(job, Queue(LIMITED, partition_concurrency=1), _of_partition))


def _of_partition(number: int) -> WorkflowSpec[[], None]:
    return nothing.options(queue=LIMITED, partition_key=f"p{number % PARTITIONS}")


async def _limited(job: Job, queue: Queue, target: Callable[[int], WorkflowSpec[[], None]]) -> Figures:
    async with Engine(job.url, executes=False) as engine:
        await engine.queues.apply_async(queue)
        with half(_work_limited, job.url) as worker:
            await asyncio.to_thread(worker.receive)
            await (await engine.start_async(target(0))).result_async()
            with metered(job.url) as meter:
                await asyncio.gather(*(engine.start_async(target(number)) for number in range(job.size)))
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


def at_once(job: Job) -> Figures:
    """The most workflows that ran at a time in two workers: of a queue with a limit, and of a partition of one."""
    limited = _most(job, Queue(LIMITED, concurrency=LIMIT), lambda _: busy.options(queue=LIMITED))
    of_one = Queue(LIMITED, partition_concurrency=1)
    partitioned = _most(job, of_one, lambda key: busy.options(queue=LIMITED, partition_key=key))
    return {"limited": limited["all"], "partitioned": partitioned["key"]}


def _most(job: Job, queue: Queue, target: Callable[[str], WorkflowSpec[[str], None]]) -> Figures:
    with Engine(job.url, executes=False) as engine:
        engine.queues.apply(queue)
        with two_workers(_work_limited, job.url) as most:
            keys = [str(number % KEYS) for number in range(job.size)]
            for handle in [engine.start(target(key), key) for key in keys]:
                handle.result()
            return most()


def _work(pipe: Connection, url: str) -> None:
    with Engine(url, loop_factory=loop.factory()) as engine:
        pipe.send("ready")
        engine.run_worker("default", concurrency=200)


def _work_limited(pipe: Connection, url: str, path: str = "") -> None:
    diary.keep(path)
    with Engine(url, loop_factory=loop.factory()) as engine:
        pipe.send("ready")
        engine.run_worker(LIMITED, concurrency=200)


SCENARIOS: dict[str, Scenario] = {
    "queue": throughput,
    "queue_many": many,
    "queue_limited": limited,
    "queue_limited_tuned": limited,
    "queue_partitions": partitioned,
    "queue_at_once": at_once,
    "queue_idle": idle,
    "start_many": start_many,
}
