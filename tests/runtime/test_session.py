"""A service's own connection, and the pool's in its place while a full server has no room for it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, workflow, write_stream_async
from dbosflow._runtime.process import session as session_module
from tests.server import Server, own_server
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dbosflow._runtime.process.session import Session

PATIENCE = 60.0


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
    with own_server() as server:
        yield server


def sessions_of(engine: Engine) -> list[Session]:
    """Those of its services."""
    services: Any = engine._core.services
    return [services._read_session, *(one._session for one in (services.notifier, services.waker, services.enqueuer))]


async def pid_of(session: Session) -> int:
    """The server process that its user gets."""
    async with session.turn() as connection:
        await connection.execute("SELECT")
        return connection.info.backend_pid


async def pool_of(engine: Engine) -> set[int]:
    """The server processes of its idle pool, at least one."""
    pool: Any = engine._core._pool
    async with pool.connection():
        pass
    return {connection.info.backend_pid for connection in pool._pool}


@asynccontextmanager
async def without_room(server: Server, *sessions: Session) -> AsyncIterator[None]:
    """All of them have connected, and are ended as by an operator; others have their places during the block."""
    pids = [await pid_of(session) for session in sessions]
    async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as admin:
        with server.full() as fill:
            for pid in pids:
                await admin.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
            fill()
            await eventually_async(lambda: not any(session.ready for session in sessions))
            yield


@workflow
async def writes_on_a_full_server() -> str:
    await write_stream_async("out", 1)
    return "done"


async def test_who_has_a_session_of_its_own_goes_on_over_the_pool_on_a_full_server(server: Server) -> None:
    """All of them: readers and waiters, enqueues, hints, and those who wake suspended workflows."""
    async with (
        asyncio.timeout(PATIENCE),
        Engine(server.url) as engine,
        Engine(server.url, executes=False) as client,
    ):
        working = asyncio.create_task(engine.run_worker_async("q"))
        sessions = sessions_of(engine) + sessions_of(client)
        await asyncio.gather(pool_of(engine), pool_of(client))
        async with without_room(server, *sessions):
            handle = await client.start_async(writes_on_a_full_server.options(queue="q"))
            values = [item.value async for item in client.read_stream_async(handle.workflow_id, "out")]
            assert (values, await handle.result_async(PATIENCE)) == ([1, None], "done")
            assert [session.ready for session in sessions] == [None] * len(sessions)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_so_does_a_worker_and_gives_back_what_was_lent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would write nothing of its workflows; and it keeps none: what was lent may be all that the pool has."""
    monkeypatch.setattr(session_module, "_PAUSE", 0.0)
    async with asyncio.timeout(PATIENCE), Engine(server.url, pool_size=1) as engine, AsyncExitStack() as starved:
        core: Any = engine._core
        lease = core.executor.lease
        await pool_of(engine)
        async with lease.lock:
            await starved.enter_async_context(without_room(server, lease._session, *sessions_of(engine)))
        for _ in range(3):
            handle = await engine.start_async(writes_on_a_full_server)
            values = [item.value async for item in engine.read_stream_async(handle.workflow_id, "out")]
            assert (values, await handle.result_async(PATIENCE)) == ([1, None], "done")
        assert lease._session.ready is None
        await starved.aclose()
        assert await engine.run_async(writes_on_a_full_server) == "done"
        assert lease.backend_pid == lease._session.backend_pid is not None
        assert lease.backend_pid not in await pool_of(engine)


async def test_the_lease_is_renewed_over_the_pool_on_a_full_server(server: Server) -> None:
    """The thread that renews asks the loop, and goes on with a connection of its own when there is room."""
    async with asyncio.timeout(PATIENCE), Engine(server.url, lease=5.0) as engine:
        core: Any = engine._core
        renewer, lease = core.executor._renewer, core.executor.lease
        worker_id = lease.id

        async def renewed() -> None:
            before = lease.deadline
            await eventually_async(lambda: lease.deadline > before)

        await pool_of(engine)
        await eventually_async(lambda: renewer._connection)
        async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as admin:
            with server.full() as fill:
                pid = renewer._connection.info.backend_pid
                await admin.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
                fill()
                await eventually_async(lambda: renewer._connection is None)
                for _ in range(3):
                    await renewed()
                assert (renewer._connection, lease.id) == (None, worker_id)
        await eventually_async(lambda: renewer._connection)


async def test_it_has_one_of_its_own_again_when_there_is_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries now and then; a failed attempt costs its user no wait."""
    monkeypatch.setattr(session_module, "_PAUSE", 0.0)
    async with (
        asyncio.timeout(PATIENCE),
        Engine(server.url, executes=False) as client,
    ):
        session = sessions_of(client)[0]
        await pool_of(client)
        async with without_room(server, session):
            assert {await pid_of(session) for _ in range(3)} <= await pool_of(client)
        assert await pid_of(session) not in await pool_of(client)
