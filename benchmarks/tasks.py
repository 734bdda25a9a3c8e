"""Procrastinate: a task queue, for the rows of the queue.

Its limit is one task for each lock, over all workers, which is that of a partition; another is that of one worker.
"""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import procrastinate
import psycopg

from benchmarks.at_once import KEYS, diary, two_workers
from benchmarks.halves import half
from benchmarks.job import Contender, Figures, Job, delays
from benchmarks.meter import metered
from benchmarks.polling import until_done, until_found

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from multiprocessing.connection import Connection

_DONE = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
_CONCURRENCY, _SMALL_CONCURRENCY = 50, 10
"""Tasks of a worker at a time; and as many as the limited queues have in all workers."""
_PARTITIONS = 1000

_Task: TypeAlias = procrastinate.tasks.Task[..., None, None]


def _app(url: str) -> tuple[procrastinate.App, _Task, _Task]:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, max_size=20))

    @app.task(name="nothing")
    async def nothing() -> None:
        """No work at all."""

    @app.task(name="busy")
    async def busy(key: str) -> None:
        """Work whose time is written down."""
        await diary.busy(key)

    return app, nothing, busy


def _prepare(url: str) -> None:
    async def run() -> None:
        app, *_ = _app(url)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(run())


def throughput(job: Job) -> Figures:
    """Defers, runs and ends so many tasks; one worker process."""
    return asyncio.run(_throughput(job, lambda nothing: [nothing.defer_async() for _ in range(job.size)]))


def many(job: Job) -> Figures:
    """The same, deferred in one call."""
    return asyncio.run(_throughput(job, lambda nothing: [nothing.batch_defer_async(*({} for _ in range(job.size)))]))


def partitioned(job: Job) -> Figures:
    """The same with 1,000 locks, which are its partitions; its call for many takes one lock for all."""
    locks = [f"p{number % _PARTITIONS}" for number in range(job.size)]
    return asyncio.run(_throughput(job, lambda nothing: [nothing.configure(lock=lock).defer_async() for lock in locks]))


async def _throughput(job: Job, deferrals: Callable[[_Task], list[Coroutine[Any, Any, Any]]]) -> Figures:
    app, nothing, _ = _app(job.url)
    with half(_work, job.url, _CONCURRENCY) as worker:
        async with app.open_async():
            await asyncio.to_thread(worker.receive)
            await nothing.defer_async()
            await until_done(job.url, _DONE, 1)
            with metered(job.url) as meter:
                await asyncio.gather(*deferrals(nothing))
                await until_done(job.url, _DONE, job.size + 1)
        worker.kill()
    return meter.rate(job.size)


def idle(job: Job) -> Figures:
    """From the deferral to the end in the table: a task has no result to wait for."""
    return asyncio.run(_idle(job))


async def _idle(job: Job) -> Figures:
    app, nothing, _ = _app(job.url)
    took = []
    with half(_work, job.url, _CONCURRENCY) as worker:
        async with app.open_async(), await psycopg.AsyncConnection.connect(job.url, autocommit=True) as looking:
            await asyncio.to_thread(worker.receive)
            for number in range(job.size + 3):
                began = time.monotonic()
                await nothing.defer_async()
                await until_found(looking, _DONE, number + 1, pause=0.001)
                took.append(time.monotonic() - began)
        worker.kill()
    return delays(took[3:])


def at_once(job: Job) -> Figures:
    """The most tasks that ran at a time in two workers: with ten in each worker, and of a lock."""
    found = {}
    for figure, locked in (("limited", False), ("partitioned", True)):
        with two_workers(_work, job.url, _SMALL_CONCURRENCY) as most:
            asyncio.run(_all_busy(job, locked=locked))
            found[figure] = most()["key" if locked else "all"]
    return found


async def _all_busy(job: Job, *, locked: bool) -> None:
    app, _, busy = _app(job.url)
    async with app.open_async():
        for number in range(job.size):
            key = str(number % KEYS)
            await busy.configure(lock=key if locked else None).defer_async(key=key)
        await until_done(job.url, _DONE, job.size * (2 if locked else 1))


def _work(pipe: Connection, url: str, concurrency: int, path: str = "") -> None:
    diary.keep(path)

    async def run() -> None:
        app, *_ = _app(url)
        async with app.open_async():
            pipe.send("ready")
            # By default a worker learns by a poll each 5 s of a lock that another has given back.
            interval = 0.05 if path else 5.0
            await app.run_worker_async(
                concurrency=concurrency, delete_jobs="never", fetch_job_polling_interval=interval
            )

    asyncio.run(run())


CONTENDER = Contender(
    f"Procrastinate {version('procrastinate')}",
    _prepare,
    {
        "queue": throughput,
        "queue_many": many,
        "queue_partitions": partitioned,
        "queue_at_once": at_once,
        "queue_idle": idle,
    },
)
