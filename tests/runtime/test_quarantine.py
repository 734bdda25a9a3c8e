"""A suspect is run alone until it gets further, only waits, or has had its time; then the worker claims again."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from dbosflow import Engine, for_each_async, read_stream_async, sleep, sleep_async, step, workflow, write_stream_async
from dbosflow._runtime.execution.quarantine import SUSPECTED
from dbosflow._store import stream
from dbosflow._store import workflow as store
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE = 60.0
let_go = threading.Event()
bodies: list[str] = []


@step
async def held() -> None:
    bodies.append("held")
    await asyncio.to_thread(let_go.wait, PATIENCE)


async def handles(value: int) -> None:
    """An item."""


@workflow
async def sleeps_long() -> None:
    await sleep_async(3600)


@workflow
def sleeps_on_a_thread() -> None:
    sleep(3600)


@workflow
async def sleeps_twice() -> None:
    await asyncio.gather(sleep_async(3600), sleep_async(3600))


@workflow
async def sleeps_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(sleep_async(3600))
        group.create_task(sleep_async(3600))


@workflow
async def waits_for_a_child() -> None:
    handle = await sleeps_long.options(queue="nobody").start_async()
    await handle.result_async()


@workflow
def waits_on_a_thread() -> None:
    sleeps_long.options(queue="nobody").start().result()


@workflow
async def reads() -> None:
    async for _ in read_stream_async("elsewhere", "k"):
        pass


@workflow(inputs=["in"])
async def loops() -> None:
    await for_each_async("in", handles)


@workflow
async def writes_and_waits() -> None:
    await write_stream_async("k", 1)
    await asyncio.to_thread(let_go.wait, PATIENCE)


@workflow
async def in_a_held_step() -> None:
    await held()
    await asyncio.to_thread(let_go.wait, PATIENCE)


@workflow
async def in_a_step_beside_a_sleep() -> None:
    await asyncio.gather(sleep_async(3600), held())


@workflow
async def in_a_plain_thread_beside_a_sleep() -> None:
    await asyncio.gather(sleep_async(3600), asyncio.to_thread(let_go.wait, PATIENCE))


async def held_item(value: int) -> None:
    """An item that takes its time."""
    await asyncio.to_thread(let_go.wait, PATIENCE)


@workflow(inputs=["in"])
async def in_an_item() -> None:
    await for_each_async("in", held_item)


@workflow
async def other() -> str:
    bodies.append("other")
    return "done"


def suspect(url: str, name: str, workflow_id: str = "suspect", recoveries: int = SUSPECTED) -> None:
    """Queues one that began before, and whose workers died."""
    with psycopg.connect(url) as session:
        session.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, recoveries, input_streams)
               VALUES (%s, %s, 'queued', '{}', 1, %s,
                       CASE WHEN %s IN ('loops', 'in_an_item') THEN '{in}'::text[] END)""",
            (workflow_id, name, recoveries, name),
        )


def sleeps_already(url: str) -> None:
    """Its branch has its sleep on record, so that is no progress."""
    with psycopg.connect(url) as session:
        session.execute(
            """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, wake_at, started_at)
               SELECT 'suspect', key, 'sleep', 1, 0, 0, now() + interval '1 hour', now()
               FROM (VALUES ('sleep_async#0/sleep#0')) AS k (key)"""
        )


def name_of(flow: Any) -> str:
    """The name that its rows have."""
    return str(flow.__name__)


def asked(url: str, query: str) -> Any:
    """One value."""
    with psycopg.connect(url) as session:
        row = session.execute(query.encode()).fetchone()
        return row and row[0]


def deaths(url: str, workflow_id: str = "suspect") -> Any:
    """How many count against it."""
    return asked(url, f"SELECT recoveries FROM dbosflow.workflow WHERE id = '{workflow_id}'")


def in_quarantine(url: str) -> Any:
    """It is, in the one worker that is live."""
    return asked(url, "SELECT suspect FROM dbosflow.worker WHERE state = 'live'")


def run(url: str, test: Callable[[Engine], Awaitable[None]], **settings: Any) -> None:
    """With an engine whose lease is longer than the test."""

    async def main() -> None:
        let_go.clear()
        bodies.clear()
        async with Engine(url, **({"lease": 3600.0, "safety_poll": 3600, "grace": 0.2} | settings)) as engine:
            try:
                await test(engine)
            finally:
                let_go.set()

    asyncio.run(main())


@pytest.mark.parametrize(
    "flow",
    [
        *(sleeps_long, sleeps_on_a_thread, sleeps_twice, sleeps_in_a_group),
        *(waits_for_a_child, waits_on_a_thread, reads, loops, writes_and_waits, other),
    ],
)
def test_a_suspect_that_gets_further_or_waits_is_acquitted(database_url: str, flow: Any) -> None:
    """And so is the next one, which the same worker claims then; also where all its records are there already."""
    for number in range(3):
        suspect(database_url, name_of(flow), f"suspect-{number}")

    async def test(engine: Engine) -> None:
        names = [f"suspect-{number}" for number in range(3)]
        await eventually_async(lambda: flow is other or [deaths(database_url, name) for name in names] == [0, 0, 0])
        await eventually_async(lambda: in_quarantine(database_url) is None)

    with psycopg.connect(database_url) as session:
        session.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, queue)
               VALUES ('elsewhere', 'other', 'queued', '{}', 1, 'nobody')"""
        )
    run(database_url, test)
    with psycopg.connect(database_url) as session:  # a second life, in which nothing new is recorded
        session.execute(f"UPDATE dbosflow.workflow SET recoveries = {SUSPECTED} WHERE status = 'queued'".encode())
    if flow not in {writes_and_waits, other}:
        run(database_url, test)


@pytest.mark.parametrize(
    "flow", [in_a_held_step, in_an_item, in_a_step_beside_a_sleep, in_a_plain_thread_beside_a_sleep]
)
def test_a_suspect_at_work_is_not_acquitted_and_nothing_else_is_claimed(database_url: str, flow: Any) -> None:
    """Though a branch of it sleeps; in-process starts go on as ever."""

    async def test(engine: Engine) -> None:
        await eventually_async(lambda: in_quarantine(database_url) == "suspect")
        working = asyncio.create_task(engine.run_worker_async("q"))
        handle = await engine.start_async(other.options(queue="q"))
        assert await engine.run_async(other) == "done"
        for _ in range(10):
            await asyncio.sleep(0.05)
            assert (deaths(database_url), in_quarantine(database_url)) == (SUSPECTED, "suspect")
        assert bodies.count("other") == 1
        let_go.set()
        assert await handle.result_async(PATIENCE) == "done"
        assert in_quarantine(database_url) is None
        working.cancel()

    suspect(database_url, name_of(flow))
    if flow is in_an_item:
        with Engine(database_url, executes=False) as client:
            client.write_stream("suspect", "in", 1)
    elif flow is not in_a_held_step:  # the sleeps are on record, so they are no progress
        sleeps_already(database_url)
    run(database_url, test)


def test_a_quarantine_ends(database_url: str) -> None:
    """After a lease for each death but two: it is not acquitted, and holds nobody up any longer."""

    async def test(engine: Engine) -> None:
        await eventually_async(lambda: bodies == ["held"])
        began = time.monotonic()
        await eventually_async(lambda: in_quarantine(database_url) is None)
        assert time.monotonic() - began < 5 * 2
        assert deaths(database_url) == SUSPECTED + 1
        assert await engine.handle("second", other).result_async(PATIENCE) == "done"

    suspect(database_url, "in_a_held_step", recoveries=SUSPECTED + 1)
    suspect(database_url, "other", "second", recoveries=SUSPECTED + 2)
    run(database_url, test, lease=0.5)


def test_a_suspect_that_is_cancelled_or_ends_leaves_the_quarantine(database_url: str) -> None:
    async def test(engine: Engine) -> None:
        await eventually_async(lambda: bodies == ["held"])
        await engine.handle("suspect").cancel_async()
        await eventually_async(lambda: in_quarantine(database_url) is None)

    suspect(database_url, "in_a_held_step")
    run(database_url, test)


class Odd:
    """What it waits with cannot even be looked at."""

    def __init__(self, waiting: Any) -> None:
        self._waiting = waiting

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._waiting)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("cr_", "gi_")):
            raise ZeroDivisionError
        raise AttributeError(name)


@workflow
async def waits_oddly() -> None:
    async def wait() -> None:
        await Odd(asyncio.get_running_loop().create_future().__await__())

    await asyncio.gather(sleep_async(3600), wait())


def test_a_suspect_that_cannot_be_looked_at_holds_nobody_up(database_url: str) -> None:
    async def test(engine: Engine) -> None:
        assert await engine.handle("second", other).result_async(PATIENCE) == "done"
        assert deaths(database_url) == SUSPECTED

    suspect(database_url, "waits_oddly")
    sleeps_already(database_url)
    suspect(database_url, "other", "second", recoveries=SUSPECTED + 1)
    run(database_url, test)


def test_a_suspect_that_is_run_since_somebody_starts_it_once_more_leaves_the_quarantine(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of its claim was lost, and its start is faster than the claimer's look at what is owned."""
    claim, adopt, lost = store.claim, store.adopt, asyncio.Event()

    async def lose(*args: Any, **options: Any) -> Any:
        if await claim(*args, **options) and not lost.is_set():
            lost.set()
            raise psycopg.OperationalError("lost")
        return []

    async def slow(*args: Any, **options: Any) -> Any:
        return [] if options.get("queues") else await adopt(*args, **options)

    async def test(engine: Engine) -> None:
        await lost.wait()
        handle = await engine.start_async(other.options(workflow_id="suspect"))
        assert await handle.result_async(PATIENCE) == "done"
        await eventually_async(lambda: in_quarantine(database_url) is None)

    monkeypatch.setattr(store, "claim", lose)
    monkeypatch.setattr(store, "adopt", slow)
    suspect(database_url, "other")
    run(database_url, test)


def test_a_suspect_that_was_not_acquitted_is_alone_among_suspects_for_longer(database_url: str) -> None:
    """Else a late death of its would accuse the next suspect. What is not suspected is claimed meanwhile."""

    async def test(engine: Engine) -> None:
        await eventually_async(lambda: bodies == ["held"])
        await eventually_async(lambda: in_quarantine(database_url) is None)
        suspect(database_url, "other", "free", recoveries=SUSPECTED - 1)
        working = asyncio.create_task(engine.run_worker_async("another"))  # as soon as it is there it looks for work
        assert await engine.handle("free", other).result_async(PATIENCE) == "done"
        assert asked(database_url, "SELECT status FROM dbosflow.workflow WHERE id = 'second'") == "queued"
        let_go.set()
        assert await engine.handle("second", other).result_async(PATIENCE) == "done"
        working.cancel()

    suspect(database_url, "in_a_held_step")
    suspect(database_url, "other", "second", recoveries=SUSPECTED + 2)
    run(database_url, test, lease=2.0, safety_poll=0.2)


def test_a_suspect_that_was_not_acquitted_is_alone_among_suspects_for_six_leases(database_url: str) -> None:
    async def test(engine: Engine) -> None:
        await eventually_async(lambda: bodies == ["held"])
        began = time.monotonic()
        assert await engine.handle("second", other).result_async(PATIENCE) == "done"
        assert time.monotonic() - began > 6 * 0.4 * 0.9

    suspect(database_url, "in_a_held_step")
    suspect(database_url, "other", "second", recoveries=SUSPECTED + 2)
    run(database_url, test, lease=0.4)


def test_a_suspect_that_waits_for_a_slow_database_is_not_acquitted(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads what is there, and handles it then: what kills its worker comes behind that each time."""
    fetch, check = stream.fetch, AsyncConnectionPool.check_connection

    async def slow(asked: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0.5)
        return await asked(*args, **options)

    async def test(engine: Engine) -> None:
        await eventually_async(lambda: in_quarantine(database_url) == "suspect")
        runner = engine._core.executor.runner
        await eventually_async(lambda: runner.run_of("suspect"))
        while not (suspected := runner.run_of("suspect")) or not suspected.bodies:
            assert deaths(database_url) == SUSPECTED
            await asyncio.sleep(0.05)

    suspect(database_url, "in_an_item")
    with Engine(database_url, executes=False) as client:
        client.write_stream("suspect", "in", 1)
    monkeypatch.setattr(stream, "fetch", partial(slow, fetch))
    monkeypatch.setattr(AsyncConnectionPool, "check_connection", partial(slow, check))
    run(database_url, test)
