"""A connection whose socket stays with the event loop waits, notices and lets go as psycopg's own does, or better."""

from __future__ import annotations

import asyncio
import socket

import psycopg
import pytest

from dbosflow._store.connect import connect_async
from tests.runtime.patience import until
from tests.runtime.sessions import cut

LARGE = "x" * (16 * 1024 * 1024)


def test_a_session_that_ends_while_nobody_uses_it_is_noticed(database_url: str) -> None:
    """Before the next statement would fail."""

    async def main() -> None:
        lost = asyncio.Event()
        connection = await connect_async(database_url)
        connection.when_lost = lost.set
        pid = connection.info.backend_pid
        await connection.execute("SELECT 1")
        await asyncio.to_thread(cut, database_url, f"pid = {pid}")
        async with asyncio.timeout(10):
            await lost.wait()
        assert connection.broken
        await connection.close()

    asyncio.run(main())


def test_a_session_that_ends_in_a_statement_fails_it(database_url: str) -> None:
    """And nothing waits for ever."""

    async def main() -> None:
        async with await connect_async(database_url) as connection:
            asking = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
            pid = connection.info.backend_pid
            await asyncio.to_thread(cut, database_url, f"pid = {pid} AND query LIKE '%pg_sleep(600)%'")
            async with asyncio.timeout(10):
                with pytest.raises(psycopg.OperationalError):
                    await asking
            assert connection.broken

    asyncio.run(main())


def test_what_is_larger_than_the_socket_goes_both_ways(database_url: str) -> None:
    """Many times: a part of the answer is no answer."""

    async def main() -> None:
        async with await connect_async(database_url) as connection:
            for _ in range(3):
                row = await (await connection.execute("SELECT %s::text", (LARGE,))).fetchone()
                assert row == (LARGE,)

    asyncio.run(main())


def test_a_cancelled_statement_is_given_up_and_the_connection_goes_on(database_url: str) -> None:
    """The server is asked to stop, and the next statement gets its own answer."""

    async def main() -> None:
        async with await connect_async(database_url) as connection:
            asking = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
            await until(lambda: connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE)
            asking.cancel()
            async with asyncio.timeout(10):
                with pytest.raises(asyncio.CancelledError):
                    await asking
                row = await (await connection.execute("SELECT 2")).fetchone()
            assert row == (2,)

    asyncio.run(main())


def test_notifications_come_while_the_connection_is_idle_busy_or_asked_for_them(database_url: str) -> None:
    """To handlers as soon as they are there, and to who iterates: none is lost between the two."""

    async def main() -> None:
        async with await connect_async(database_url) as listener, await connect_async(database_url) as notifier:
            await listener.execute("LISTEN news")
            await notifier.execute("NOTIFY news, 'before anybody asks'")
            await notifier.execute("NOTIFY news, 'a second one'")
            heard = [one.payload async for one in listener.notifies(timeout=10, stop_after=2)]
            assert heard == ["before anybody asks", "a second one"]
            listener.add_notify_handler(lambda one: heard.append(one.payload))
            await listener.execute("SELECT 1")
            await notifier.execute("NOTIFY news, 'idle'")
            await until(lambda: heard[-1] == "idle")
            asking = asyncio.create_task(listener.execute("SELECT pg_sleep(0.1)"))
            await notifier.execute("NOTIFY news, 'busy'")
            await asking
            await until(lambda: heard[-1] == "busy")

    asyncio.run(main())


def test_the_loop_forgets_a_closed_connection(database_url: str) -> None:
    """Its socket's number is soon that of another one, which the loop must be able to watch."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        connection = await connect_async(database_url)
        await connection.execute("SELECT 1")
        number = connection.pgconn.socket
        await connection.close()
        assert not loop.remove_reader(number)
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            receiving = asyncio.create_task(loop.sock_recv(left, 1))
            await asyncio.sleep(0)
            right.send(b"x")
            async with asyncio.timeout(10):
                assert await receiving == b"x"

    asyncio.run(main())
