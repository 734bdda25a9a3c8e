"""Procrastinate: a task queue, for the rows of the queue."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import procrastinate
import psycopg

from benchmarks.halves import half
from benchmarks.job import Contender, Figures, Job, delays
from benchmarks.meter import metered
from benchmarks.polling import until_done, until_found

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_DONE = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
_CONCURRENCY = 50


def _app(url: str) -> tuple[procrastinate.App, procrastinate.tasks.Task[[], None, None]]:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, max_size=20))

    @app.task(name="nothing")
    async def nothing() -> None:
        """No work at all."""

    return app, nothing


def _prepare(url: str) -> None:
    async def run() -> None:
        app, _ = _app(url)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(run())


def throughput(job: Job) -> Figures:
    """Defers, runs and ends so many tasks; one worker process."""
    return asyncio.run(_throughput(job))


async def _throughput(job: Job) -> Figures:
    app, nothing = _app(job.url)
    with half(_work, job.url) as worker:
        async with app.open_async():
            await asyncio.to_thread(worker.receive)
            await nothing.defer_async()
            await until_done(job.url, _DONE, 1)
            with metered(job.url) as meter:
                await nothing.batch_defer_async(*({} for _ in range(job.size)))  # its way for many
                await until_done(job.url, _DONE, job.size + 1)
        worker.kill()
    return meter.rate(job.size)


def idle(job: Job) -> Figures:
    """From the deferral to the end in the table: a task has no result to wait for."""
    return asyncio.run(_idle(job))


async def _idle(job: Job) -> Figures:
    app, nothing = _app(job.url)
    took = []
    with half(_work, job.url) as worker:
        async with app.open_async(), await psycopg.AsyncConnection.connect(job.url, autocommit=True) as looking:
            await asyncio.to_thread(worker.receive)
            for number in range(job.size + 3):
                began = time.monotonic()
                await nothing.defer_async()
                await until_found(looking, _DONE, number + 1, pause=0.001)
                took.append(time.monotonic() - began)
        worker.kill()
    return delays(took[3:])


def _work(pipe: Connection, url: str) -> None:
    async def run() -> None:
        app, _ = _app(url)
        async with app.open_async():
            pipe.send("ready")
            await app.run_worker_async(concurrency=_CONCURRENCY, delete_jobs="never")

    asyncio.run(run())


CONTENDER = Contender(f"Procrastinate {version('procrastinate')}", _prepare, {"queue": throughput, "queue_idle": idle})
