"""Absurd: durable tasks whose engine is functions of the database, and whose steps are calls of them.

Its SDK for Python has one connection and one worker a client, so a process where many tasks run has several clients:
with them it is two to three times faster. What polls by default is measured as it is by default, and once more with the
interval that suits the scenario best. Its SQL comes with the package of its command, ``absurdctl init``.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import absurdctl
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

from benchmarks.gate import Gate, gates
from benchmarks.halves import half
from benchmarks.job import Contender, Figures, Job, delays
from benchmarks.meter import metered
from benchmarks.polling import until_done

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_VERSION = version("absurd-sdk")
if absurdctl.ABSURD_SCHEMA_TARGET_VERSION != _VERSION:
    raise ImportError(f"absurd-sdk is {_VERSION}, absurdctl has SQL for {absurdctl.ABSURD_SCHEMA_TARGET_VERSION}")

_DONE = "SELECT count(*) FROM absurd.t_default WHERE state = 'completed'"
_CLIENTS = 10
_CONCURRENCY = 25
_TASKS = 100
_WARM_UP = 20
_PATIENT, _EAGER = 0.25, 0.05
"""Seconds between two polls of a worker: the SDK's default, and the peer's on the tuned rows."""


async def echo(number: int) -> int:
    """A step that costs nothing itself."""
    return number


def echo_sync(number: int) -> int:
    """A sync one."""
    return number


def _app(url: str) -> AsyncAbsurd:
    app = AsyncAbsurd(url)

    @app.register_task("sequence")
    async def sequence(steps: int, context: Any) -> float:
        """One step after the other; how long they took."""
        began = time.monotonic()
        for number in range(steps):
            await context.step("echo", partial(echo, number))
        return time.monotonic() - began

    @app.register_task("gated sequence")
    async def gated_sequence(steps: int, context: Any) -> None:
        """One step after the other, once everybody is there."""
        await gates["measured"].passed()
        for number in range(steps):
            await context.step("echo", partial(echo, number))

    @app.register_task("nothing")
    async def nothing(_params: None, _context: Any) -> None:
        """No step at all."""

    return app


def _prepare(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    with closing(Absurd(url)) as app:
        app.create_queue()


def steps_async(job: Job) -> Figures:
    """Sequential steps of one async task."""
    return asyncio.run(_steps_async(job))


async def _steps_async(job: Job) -> Figures:
    app = _app(job.url)
    await _run(app, _WARM_UP)
    with metered(job.url) as meter:
        seconds = await _run(app, job.size)
    await app.close()
    return meter.rate(job.size) | {"rate": job.size / seconds}


async def _run(app: AsyncAbsurd, steps: int) -> float:
    spawned = await app.spawn("sequence", steps)
    await app.work_batch()
    seconds: float = (await app.fetch_task_result(spawned["task_id"])).result
    return seconds


def steps_sync(job: Job) -> Figures:
    """Sequential steps of one sync task."""
    with closing(Absurd(job.url)) as app:

        @app.register_task("sequence")
        def sequence(steps: int, context: Any) -> float:
            """One step after the other; how long they took."""
            began = time.monotonic()
            for number in range(steps):
                context.step("echo", partial(echo_sync, number))
            return time.monotonic() - began

        def run(steps: int) -> float:
            spawned = app.spawn("sequence", steps)
            app.work_batch()
            seconds: float = app.fetch_task_result(spawned["task_id"]).result
            return seconds

        run(_WARM_UP)
        with metered(job.url) as meter:
            seconds = run(job.size)
        return meter.rate(job.size) | {"rate": job.size / seconds}


def concurrent_steps(job: Job) -> Figures:
    """Steps of 100 concurrent async tasks; ``job.size`` steps in all."""
    return asyncio.run(_concurrent_steps(job))


async def _concurrent_steps(job: Job) -> Figures:
    apps = [_app(job.url) for _ in range(_CLIENTS)]
    for app in apps:
        await _run(app, _WARM_UP)
    gate = gates["measured"] = Gate()
    each = max(1, job.size // _TASKS)
    for _ in range(_TASKS):
        await apps[0].spawn("gated sequence", each)
    workers = [asyncio.create_task(app.start_worker(concurrency=_TASKS // _CLIENTS)) for app in apps]
    await gate.gather(_TASKS)
    for app in apps:
        app.stop_worker()  # what it has claimed, it ends
    with metered(job.url) as meter:
        gate.open()
        await asyncio.gather(*workers)
    return meter.rate(_TASKS * each)


def throughput(job: Job) -> Figures:
    """Spawns, runs and ends so many tasks; one worker process."""
    return asyncio.run(_throughput(job))


async def _throughput(job: Job) -> Figures:
    with half(_work, job.url, _CLIENTS, _PATIENT) as worker:
        apps = [_app(job.url) for _ in range(_CLIENTS)]
        await asyncio.to_thread(worker.receive)
        for app in apps:
            await app.spawn("nothing", None)
        await until_done(job.url, _DONE, _CLIENTS)
        with metered(job.url) as meter:
            numbers = iter(range(job.size))
            await asyncio.gather(*(_spawn_each(app, numbers) for app in apps))
            await until_done(job.url, _DONE, _CLIENTS + job.size)
        worker.kill()
    return meter.rate(job.size)


async def _spawn_each(app: AsyncAbsurd, numbers: Iterator[int]) -> None:
    for _ in numbers:
        await app.spawn("nothing", None)


def idle(job: Job) -> Figures:
    """From the spawn to the result, on a queue where nothing else waits; also with a worker that polls at 50 ms."""
    patient, eager = (asyncio.run(_timed(job, interval)) for interval in (_PATIENT, _EAGER))
    return delays(patient) | {f"{name}_tuned": figure for name, figure in delays(eager).items()}


async def _timed(job: Job, interval: float) -> list[float]:
    took = []
    with half(_work, job.url, 1, interval) as worker:
        app = _app(job.url)
        await asyncio.to_thread(worker.receive)
        for _ in range(job.size + 1):
            began = time.monotonic()
            spawned = await app.spawn("nothing", None)
            await app.await_task_result(spawned["task_id"])
            took.append(time.monotonic() - began)
        await app.close()
        worker.kill()
    return took[1:]


def _work(pipe: Connection, url: str, clients: int, interval: float) -> None:
    async def run() -> None:
        apps = [_app(url) for _ in range(clients)]
        pipe.send("ready")
        await asyncio.gather(*(app.start_worker(concurrency=_CONCURRENCY, poll_interval=interval) for app in apps))

    asyncio.run(run())


CONTENDER = Contender(
    f"Absurd {_VERSION}",
    _prepare,
    {
        "steps_async": steps_async,
        "steps_sync": steps_sync,
        "steps_100": concurrent_steps,
        "queue": throughput,
        "queue_idle": idle,
    },
)
