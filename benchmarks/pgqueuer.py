"""PgQueuer: a task queue whose functions may have a limit over all workers.

As its guides have it: a pool for the client, one connection for the worker, larger batches where jobs are short, and
asyncpg. Its command runs a worker on uvloop, so it is on uvloop here. It has no partitions: a limit for each of 1,000
takes 1,000 functions, which are known when the worker starts.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import asyncpg
import pgqueuer
import psycopg
from pgqueuer.queries import Queries

from benchmarks import loop
from benchmarks.at_once import KEYS, diary, two_workers
from benchmarks.halves import half
from benchmarks.job import Contender, Figures, Job, delays
from benchmarks.meter import metered
from benchmarks.polling import until_done, until_found

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from multiprocessing.connection import Connection

_DONE = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
_BATCH, _DEFAULT_BATCH = 200, 10
"""Jobs that a worker takes at a time, and whose ends it notes at a time, at the latest after 0.1 s."""
_PLAIN, _LIMITED, _LIMIT = "nothing", "limited", 10
_PARTITIONS = 1000


def _partition(number: int) -> str:
    return f"partition-{number % _PARTITIONS}"


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Queries]:
    async with asyncpg.create_pool(url, min_size=1, max_size=10) as pool:
        yield Queries.from_asyncpg_pool(pool)


async def _enqueue(client: Queries, entrypoints: Sequence[str]) -> None:
    """Many in one statement."""
    await client.enqueue(list(entrypoints), [None] * len(entrypoints), [0] * len(entrypoints))


def _prepare(url: str) -> None:
    async def run() -> None:
        async with _client(url) as client:
            await client.install()
            await client.optimize_autovacuum()  # and a fillfactor: its checklist begins with it

    asyncio.run(run())


def throughput(job: Job) -> Figures:
    """Enqueues, runs and ends so many jobs; one worker process."""
    return loop.run(_throughput(job, [[_PLAIN]] * job.size))


def many(job: Job) -> Figures:
    """The same, enqueued in one call."""
    return loop.run(_throughput(job, [[_PLAIN] * job.size]))


def limited(job: Job) -> Figures:
    """The same as ``many`` with a function of which ten run at a time, in all workers; one worker process."""
    return loop.run(_throughput(job, [[_LIMITED] * job.size], _DEFAULT_BATCH))


def partitioned(job: Job) -> Figures:
    """The same as ``many`` with 1,000 functions, of which each runs once at a time; one worker process."""
    return loop.run(_throughput(job, [[_partition(number) for number in range(job.size)]]))


async def _throughput(job: Job, calls: Sequence[Sequence[str]], batch: int = _BATCH) -> Figures:
    entrypoints = sorted({name for call in calls for name in call})
    with half(_work, job.url, entrypoints, batch) as worker:
        async with _client(job.url) as client:
            await asyncio.to_thread(worker.receive)
            await _enqueue(client, entrypoints[:1])
            await until_done(job.url, _DONE, 1)
            with metered(job.url) as meter:
                await asyncio.gather(*(_enqueue(client, call) for call in calls))
                await until_done(job.url, _DONE, job.size + 1)
        worker.kill()
    return meter.rate(job.size)


def idle(job: Job) -> Figures:
    """From the enqueue to the end in the table; also with a worker that takes jobs, and notes ends, one by one."""
    patient, eager = (loop.run(_idle(job, batch)) for batch in (_DEFAULT_BATCH, 1))
    return delays(patient) | {f"{name}_tuned": figure for name, figure in delays(eager).items()}


async def _idle(job: Job, batch: int) -> list[float]:
    took = []
    with half(_work, job.url, [_PLAIN], batch) as worker:
        async with (
            _client(job.url) as client,
            await psycopg.AsyncConnection.connect(job.url, autocommit=True) as looking,
        ):
            await asyncio.to_thread(worker.receive)
            row = await (await looking.execute(_DONE)).fetchone()
            assert row is not None
            for number in range(job.size + 3):
                await asyncio.sleep(0.05)
                began = time.monotonic()
                await _enqueue(client, [_PLAIN])
                await until_found(looking, _DONE, row[0] + number + 1, pause=0.001)
                took.append(time.monotonic() - began)
        worker.kill()
    return took[3:]


def at_once(job: Job) -> Figures:
    """The most jobs that ran at a time in two workers: with a limit of ten, and of one for each of a few functions."""
    with two_workers(_work, job.url, [_LIMITED], _DEFAULT_BATCH) as most:
        loop.run(_all_busy(job, [_LIMITED] * job.size, job.size))
        limited = most()["all"]
    functions = [_partition(number % KEYS) for number in range(job.size)]
    with two_workers(_work, job.url, sorted(set(functions)), _DEFAULT_BATCH) as most:
        loop.run(_all_busy(job, functions, 2 * job.size))
        return {"limited": limited, "partitioned": most()["key"]}


async def _all_busy(job: Job, entrypoints: Sequence[str], ended: int) -> None:
    async with _client(job.url) as client:
        await _enqueue(client, entrypoints)
        await until_done(job.url, _DONE, ended)


def _work(pipe: Connection, url: str, entrypoints: Sequence[str], batch: int, path: str = "") -> None:
    diary.keep(path)

    async def nothing(job: pgqueuer.Job) -> None:
        """No work at all, or some whose time is written down."""
        if path:
            await diary.busy(job.entrypoint)

    async def run() -> None:
        application = pgqueuer.PgQueuer(pgqueuer.AsyncpgDriver(await asyncpg.connect(url)))
        for name in entrypoints:
            limit = 0 if name == _PLAIN else _LIMIT if name == _LIMITED else 1
            application.entrypoint(name, concurrency_limit=limit)(nothing)
        pipe.send("ready")
        await application.run(batch_size=batch)

    loop.run(run())


_SCENARIOS = {
    "queue": throughput,
    "queue_many": many,
    "queue_limited": limited,
    "queue_partitions": partitioned,
    "queue_at_once": at_once,
    "queue_idle": idle,
}

CONTENDER = Contender(
    f"PgQueuer {version('pgqueuer')}",
    _prepare,
    {name: loop.on_uvloop(scenario) for name, scenario in _SCENARIOS.items()},
)
