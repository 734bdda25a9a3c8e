"""Queues: a client here, a worker in another process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from dbos import DBOS, DBOSClient, EnqueueOptions

from benchmarks.at_once import KEYS, diary, two_workers
from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from benchmarks.peer.application import (
    DONE,
    EAGER,
    LIMITED,
    LIMITED_EAGER,
    PARTITIONED,
    PATIENT,
    launched,
)
from benchmarks.peer.workflows import nothing
from benchmarks.polling import until_done

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PARTITIONS = 1000


@DBOS.workflow()
async def busy(key: str) -> None:
    """Work whose time is written down."""
    await diary.busy(key)


def throughput(job: Job) -> Figures:
    """Enqueues, runs and ends so many workflows; one worker process."""
    return asyncio.run(_throughput(job, EAGER))


def limited(job: Job) -> Figures:
    """The same on a queue of which ten run at a time, in all workers; one worker process."""
    return asyncio.run(_throughput(job, LIMITED))


def limited_tuned(job: Job) -> Figures:
    """The same with a worker that polls at 20 ms."""
    return asyncio.run(_throughput(job, LIMITED_EAGER))


def partitioned(job: Job) -> Figures:
    """The same on a queue of 1,000 partitions, of which each has one that runs at a time; one worker process."""
    return asyncio.run(_throughput(job, PARTITIONED))


async def _throughput(job: Job, queue: str) -> Figures:
    with half(_work, job.url) as worker:
        client = DBOSClient(system_database_url=job.url, system_database_pool_size=20)
        await asyncio.to_thread(worker.receive)
        await (await _enqueue(client, queue)).get_result(polling_interval_sec=0.05)
        with metered(job.url) as meter:
            await asyncio.gather(*(_enqueue(client, queue, number) for number in range(job.size)))
            await until_done(job.url, DONE, job.size + 1)
        client.destroy()
        worker.kill()
    return meter.rate(job.size)


async def _enqueue(client: DBOSClient, queue: str, number: int = 0) -> Any:
    options: EnqueueOptions = {"workflow_name": nothing.__qualname__, "queue_name": queue}
    if queue == PARTITIONED:
        options["queue_partition_key"] = f"p{number % PARTITIONS}"
    return await client.enqueue_async(options)


def start_many(job: Job) -> Figures:
    """Enqueues so many workflows; its client has no call for many."""
    return asyncio.run(_start_many(job))


async def _start_many(job: Job) -> Figures:
    client = DBOSClient(system_database_url=job.url, system_database_pool_size=20)
    await _enqueue(client, EAGER)
    with metered(job.url) as meter:
        await asyncio.gather(*(_enqueue(client, EAGER) for _ in range(job.size)))
    client.destroy()
    return meter.rate(job.size)


def idle(job: Job) -> Figures:
    """From the enqueue to the result, on a queue where nothing else waits; also with both sides polling at 50 ms."""
    return asyncio.run(_idle(job))


async def _idle(job: Job) -> Figures:
    with half(_work, job.url) as worker:
        client = DBOSClient(system_database_url=job.url)
        await asyncio.to_thread(worker.receive)
        await _timed(client, EAGER, 2, 0.05)
        patient = await _timed(client, PATIENT, job.size, None)
        eager = await _timed(client, EAGER, job.size, 0.05)
        client.destroy()
        worker.kill()
    return delays(patient) | {f"{name}_tuned": figure for name, figure in delays(eager).items()}


async def _timed(client: DBOSClient, queue: str, times: int, interval: float | None) -> list[float]:
    took = []
    for _ in range(times):
        began = time.monotonic()
        handle = await _enqueue(client, queue)
        await (handle.get_result() if interval is None else handle.get_result(polling_interval_sec=interval))
        took.append(time.monotonic() - began)
    return took


def at_once(job: Job) -> Figures:
    """The most workflows that ran at a time in two workers: of a queue with a limit, and of a partition of one."""
    found = {}
    for figure, queue in (("limited", LIMITED_EAGER), ("partitioned", PARTITIONED)):
        with two_workers(_work, job.url) as most:
            asyncio.run(_all_busy(job, queue))
            found[figure] = most()["key" if queue == PARTITIONED else "all"]
    return found


async def _all_busy(job: Job, queue: str) -> None:
    client = DBOSClient(system_database_url=job.url)
    handles = []
    for number in range(job.size):
        key = str(number % KEYS)
        options: EnqueueOptions = {"workflow_name": busy.__qualname__, "queue_name": queue}
        if queue == PARTITIONED:
            options["queue_partition_key"] = key
        handles.append(await client.enqueue_async(options, key))
    for handle in handles:
        await handle.get_result(polling_interval_sec=0.05)
    client.destroy()


def _work(pipe: Connection, url: str, path: str = "") -> None:
    diary.keep(path)

    async def run() -> None:
        with launched(url):
            pipe.send("ready")
            await asyncio.Event().wait()

    asyncio.run(run())


SCENARIOS: dict[str, Scenario] = {
    "queue": throughput,
    "queue_limited": limited,
    "queue_limited_tuned": limited_tuned,
    "queue_partitions": partitioned,
    "queue_at_once": at_once,
    "queue_idle": idle,
    "start_many": start_many,
}
