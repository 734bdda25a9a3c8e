"""A closed engine leaves nothing behind: no task, no thread, no session, no file descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow._runtime.execution.watchdog import Watchdog
from dbosflow._runtime.process.database import find_database
from dbosflow._runtime.process.service import Service
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._store.used_units import UsedUnits
from dbosflow._store.workflow import Enqueued
from dbosflow.config import Settings
from dbosflow.errors import EngineClosedError
from tests.runtime.sessions import sessions
from tests.support import TIMEOUT, eventually, eventually_async

if TYPE_CHECKING:
    from dbosflow._runtime.process.database import Database

ENGINES = 20


@step
def sync_work() -> int:
    return threading.get_ident()


@workflow
async def flow() -> None:
    """Uses what an engine has: threads, streams, branches."""
    await asyncio.gather(*(sync_work.run_async() for _ in range(3)))
    await write_stream_async("out", 1)


@workflow
def sync_flow() -> None:
    sync_work()


def _descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("dbosflow")}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not show descriptors")
@pytest.mark.parametrize("hosted", ["on the running loop", "on a thread"])
def test_engines_that_were_opened_and_closed_leave_nothing_behind(database_url: str, hosted: str) -> None:
    """Twenty in a row, each with work done."""

    async def use() -> None:
        async with Engine(database_url) as engine:
            handle = await engine.start_async(flow)
            assert [item.value async for item in engine.read_stream_async(handle.workflow_id, "out")] == [1, None]
            await handle.result_async(10)
            await engine.run_async(sync_flow)

    def use_on_a_thread() -> None:
        with Engine(database_url) as engine:
            engine.run(flow)
            engine.run(sync_flow)

    async def main(count: int) -> None:
        before = asyncio.all_tasks()
        for _ in range(count):
            await (asyncio.to_thread(use_on_a_thread) if hosted == "on a thread" else use())
        assert asyncio.all_tasks() == before
        assert asyncio.get_running_loop().get_task_factory() is None

    asyncio.run(main(2))  # what is loaded once stays
    eventually(lambda: not _threads())
    descriptors = _descriptors()
    asyncio.run(main(ENGINES))
    eventually(lambda: not _threads())
    eventually(lambda: not sessions(database_url))
    assert _descriptors() <= descriptors
    with psycopg.connect(database_url, autocommit=True) as connection:
        query = "SELECT DISTINCT state, ended_because FROM dbosflow.worker"
        assert connection.execute(query).fetchall() == [("dead", "released")]


async def test_an_engine_that_could_not_open_leaves_nothing_behind(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it had opened by then is closed."""
    from dbosflow._runtime.leases.reclaimer import Reclaimer

    def fail(self: Reclaimer) -> None:
        raise RuntimeError("no reclaimer today")

    monkeypatch.setattr(Reclaimer, "open", fail)

    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="no reclaimer today"):
        await Engine(database_url).open_async()
    assert asyncio.all_tasks() == before
    assert asyncio.get_running_loop().get_task_factory() is None
    eventually(lambda: not _threads())
    eventually(lambda: not sessions(database_url))
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM dbosflow.worker WHERE state = 'live'").fetchone() == (0,)


class Deaf(Service):
    """A service that loses the first cancellation, as ``asyncio.wait_for`` does now and then before Python 3.12."""

    def __init__(self) -> None:
        super().__init__("deaf", interval=None)
        self.working = asyncio.Event()

    async def work_once(self) -> bool:
        self.working.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return False


async def test_a_service_that_loses_a_cancellation_ends_all_the_same() -> None:
    """Its engine closes."""
    service = Deaf()
    service.open()
    await service.working.wait()
    async with asyncio.timeout(60):
        await service.close()


async def test_opening_that_is_cancelled_leaves_the_server_it_found(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that starts an embedded server cannot be stopped; what it brings is let go of."""
    may_find, left = threading.Event(), threading.Event()

    def find(*args: Any, **options: Any) -> Database:
        may_find.wait(60)
        database = find_database(*args, **options)
        database.resources.callback(left.set)
        return database

    monkeypatch.setattr("dbosflow._runtime.engine.lifecycle.find_database", find)
    opening = asyncio.create_task(Engine(database_url).open_async())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    may_find.set()
    assert await asyncio.to_thread(left.wait, 10)


def test_a_watchdog_whose_loop_ends_while_it_asks_ends_too() -> None:
    """The sign of life that it waits for will never come."""
    loop = asyncio.new_event_loop()
    watchdogs: list[Watchdog] = []

    def hold_the_loop(_: object) -> None:  # in its last turn: what is asked for now is not answered any more
        watchdog = watchdogs[0]
        watchdog._alive.set()
        watchdog.open()
        eventually(lambda: not watchdog._alive.is_set())

    async def main() -> None:
        watchdogs.append(Watchdog(Settings(slow_callback=0.01), RunningCode()))
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(hold_the_loop)

    loop.run_until_complete(main())
    loop.close()
    watchdogs[0]._thread.join(60)
    assert not watchdogs[0]._thread.is_alive()


def test_a_lease_is_released_although_its_connection_broke_unnoticed(database_url: str) -> None:
    """An idle worker notices only when it leaves; nobody need wait for the end of its lease all the same."""

    async def main() -> None:
        async with Engine(database_url, lease=600.0) as engine:
            executor = engine._core._executor
            assert executor is not None
            async with executor.lease.lock:
                connection = await executor.lease.connection()
                with socket.socket(fileno=os.dup(connection.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)

    asyncio.run(main())
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT state, ended_because FROM dbosflow.worker").fetchall()
    assert found == [("dead", "released")]


@pytest.mark.parametrize("when", ["before the close", "while it closes", "afterwards"])
async def test_what_comes_too_late_to_be_adopted_is_left_to_others(
    database_url: str, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    """A start whose answer was lost: its workflow goes on elsewhere. Nothing is logged, and no session made."""
    plant = """INSERT INTO dbosflow.workflow (id, name, status, queue, input, worker_id, epoch)
                   SELECT 'w', 'flow', 'running', '', '{}', id, 1 FROM dbosflow.worker"""
    async with Engine(database_url, safety_poll=100.0) as engine:
        core: Any = engine._core
        executor = core.executor
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute(plant)
        found = await core.repository.started("w")
        adopting, queue = [], deque[asyncio.Future[None]]()
        async with executor.lease.lock:
            if when == "before the close":
                adopting.append(asyncio.create_task(executor.adopt(found)))
                await eventually_async(lambda: len(executor.lease.lock._waiters or queue) == 1)
            closing = asyncio.create_task(engine.close_async())
            await eventually_async(lambda: len(executor.lease.lock._waiters or queue) == 1 + len(adopting))
            if when == "while it closes":
                adopting.append(asyncio.create_task(executor.adopt(found)))
        await closing
        if when == "afterwards":
            adopting.append(asyncio.create_task(executor.adopt(found)))
        await asyncio.gather(*adopting)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    await asyncio.to_thread(eventually, lambda: not sessions(database_url))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        status = await (await connection.execute("SELECT status FROM dbosflow.workflow")).fetchall()
    assert status == [("queued",)]


async def test_who_asks_a_moment_after_the_close_does_not_wait_for_ever(database_url: str) -> None:
    """A caller that was between two requests comes to what is closed by then: say, between two pages of a stream."""
    async with Engine(database_url) as engine:
        core: Any = engine._core
    row = Enqueued("w", "flow", "default", 0, "{}")
    asked = [
        core.outcome("w"),
        core.services.hub.read("w", "out", 0, None),
        core.services.enqueuer.enqueue(row, []),
        core._starts._deduplicator.start(row),
        core.services.units_writer.use(UsedUnits("w", "key", 1, "default", None)),
        core.services.input_writer.append("w", "in", "1", None),
        core.services.message_writer.send("w", "", "1", None),
    ]
    answers = await asyncio.gather(*(asyncio.wait_for(one, TIMEOUT) for one in asked), return_exceptions=True)
    assert [type(one) for one in answers] == [EngineClosedError] * len(asked)
