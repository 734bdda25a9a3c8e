"""Oban's port to Python, without the licensed part: its limits are those of one process, and it knows no partitions.

It needs Python 3.12, and uvloop, on which its command runs a worker; so it is on uvloop here.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import oban
import psycopg
from oban import schema

from benchmarks import loop
from benchmarks.at_once import KEYS, diary, two_workers
from benchmarks.halves import half
from benchmarks.job import Contender, Figures, Job, delays
from benchmarks.meter import metered
from benchmarks.polling import until_done, until_found

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from multiprocessing.connection import Connection

_DONE = "SELECT count(*) FROM oban_jobs WHERE state = 'completed'"
_LIMIT, _SMALL_LIMIT = 200, 10
"""Jobs of a worker at a time: as many as of dbosflow, and as many as the limited queues have in all workers."""


@oban.job(queue="default")
async def nothing() -> None:
    """No work at all."""


@oban.job(queue="default")
async def busy(key: str) -> None:
    """Work whose time is written down."""
    await diary.busy(key)


@asynccontextmanager
async def _application(url: str, **options: Any) -> AsyncIterator[oban.Oban]:
    pool = await oban.Oban.create_pool(url)
    async with oban.Oban(pool=pool, **options) as application:
        yield application
    await pool.close()


def _prepare(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(schema.install_sql())


def throughput(job: Job) -> Figures:
    """Enqueues, runs and ends so many jobs; one worker process."""
    return loop.run(_throughput(job, lambda client: [client.enqueue(nothing.new()) for _ in range(job.size)]))


def many(job: Job) -> Figures:
    """The same, enqueued in one call."""
    return loop.run(_throughput(job, lambda client: [client.enqueue_many(nothing.new() for _ in range(job.size))]))


async def _throughput(job: Job, enqueue: Callable[[oban.Oban], list[Coroutine[Any, Any, Any]]]) -> Figures:
    with half(_work, job.url, _LIMIT) as worker:
        async with _application(job.url) as client:
            await asyncio.to_thread(worker.receive)
            await client.enqueue(nothing.new())
            await until_done(job.url, _DONE, 1)
            with metered(job.url) as meter:
                await asyncio.gather(*enqueue(client))
                await until_done(job.url, _DONE, job.size + 1)
            worker.kill()
    return meter.rate(job.size)


def idle(job: Job) -> Figures:
    """From the enqueue to the end in the table: a job has no result to wait for."""
    return loop.run(_idle(job))


async def _idle(job: Job) -> Figures:
    took = []
    with half(_work, job.url, _LIMIT) as worker:
        async with (
            _application(job.url) as application,
            await psycopg.AsyncConnection.connect(job.url, autocommit=True) as looking,
        ):
            await asyncio.to_thread(worker.receive)
            for number in range(job.size + 3):
                await asyncio.sleep(0.05)
                began = time.monotonic()
                await application.enqueue(nothing.new())
                await until_found(looking, _DONE, number + 1, pause=0.001)
                took.append(time.monotonic() - began)
            worker.kill()
    return delays(took[3:])


def at_once(job: Job) -> Figures:
    """The most jobs that ran at a time in two workers with a limit of ten."""
    with two_workers(_work, job.url, _SMALL_LIMIT) as most:
        loop.run(_all_busy(job))
        return {"limited": most()["all"]}


async def _all_busy(job: Job) -> None:
    async with _application(job.url) as application:
        await application.enqueue_many(busy.new(str(number % KEYS)) for number in range(job.size))
        await until_done(job.url, _DONE, job.size)


def _work(pipe: Connection, url: str, limit: int, path: str = "") -> None:
    diary.keep(path)

    async def run() -> None:
        async with _application(url, queues={"default": limit}):
            pipe.send("ready")
            await asyncio.Event().wait()

    loop.run(run())


_SCENARIOS = {"queue": throughput, "queue_many": many, "queue_at_once": at_once, "queue_idle": idle}

CONTENDER = Contender(
    f"Oban {version('oban')}",
    _prepare,
    {name: loop.on_uvloop(scenario) for name, scenario in _SCENARIOS.items()},
)
