"""A connection whose socket stays with the event loop waits, notices and lets go as psycopg's own does, or better."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._store.connect import connect_async
from dbosflow._store.connection import Connection
from tests.behaviour.proxy import Proxy
from tests.runtime.sessions import cut
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = "x" * (16 * 1024 * 1024)
CANCEL_REQUEST = (1234 << 16 | 5678).to_bytes(4)
"""The code of the protocol's message that asks the server to give a statement up."""


async def test_a_session_that_ends_while_nobody_uses_it_is_noticed(database_url: str) -> None:
    """Before the next statement would fail."""
    lost = asyncio.Event()
    connection = await connect_async(database_url)
    connection.on_lost = lost.set
    pid = connection.info.backend_pid
    await connection.execute("SELECT 1")
    await asyncio.to_thread(cut, database_url, f"pid = {pid}")
    async with asyncio.timeout(60):
        await lost.wait()
    assert connection.broken
    await connection.close()


async def test_a_session_that_ends_in_a_statement_fails_it(database_url: str) -> None:
    """And nothing waits for ever."""
    async with await connect_async(database_url) as connection:
        asking = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
        pid = connection.info.backend_pid
        await asyncio.to_thread(cut, database_url, f"pid = {pid} AND query LIKE '%pg_sleep(600)%'")
        async with asyncio.timeout(60):
            with pytest.raises(psycopg.OperationalError):
                await asking
        assert connection.broken


async def test_payloads_larger_than_the_sockets_buffers_go_both_ways(database_url: str) -> None:
    """Many times: a part of the answer is no answer."""
    async with await connect_async(database_url) as connection:
        for _ in range(3):
            row = await (await connection.execute("SELECT %s::text", (LARGE,))).fetchone()
            assert row == (LARGE,)


async def _is_cancelled(asking: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await asking


async def _goes_on(connection: Connection) -> None:
    async with asyncio.timeout(60):
        row = await (await connection.execute("SELECT 2")).fetchone()
    assert row == (2,)


async def test_a_cancelled_statement_ends_and_the_connection_goes_on(database_url: str) -> None:
    """The server is asked to stop, and the next statement gets its own answer."""
    async with await connect_async(database_url) as connection:
        asking = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
        await eventually_async(lambda: connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE)
        asking.cancel()
        await _is_cancelled(asking)
        await _goes_on(connection)


class Slow(Proxy):
    """Keeps a statement back, ``for_ever`` or until the server has been asked twice to give it up."""

    def __init__(self, url: str, *, for_ever: bool) -> None:
        super().__init__(url)
        self.kept_back = threading.Event()
        self.asked = threading.Event()
        self._over = threading.Event()
        self._for_ever = for_ever

    def close(self) -> None:
        self._over.set()
        super().close()

    def sent(self, client: socket.socket, data: bytes) -> None:
        if b"pg_sleep" in data:
            self.kept_back.set()
            self._over.wait(60)
        elif data[4:8] == CANCEL_REQUEST:
            if self.asked.is_set() and not self._for_ever:
                self._over.set()
            self.asked.set()


async def test_a_statement_is_cancelled_that_the_server_has_yet_to_read(database_url: str) -> None:
    """It passes over the first request then, and is asked again."""
    with closing(Slow(database_url, for_ever=False)) as slow:
        async with await connect_async(slow.url) as connection:
            asking = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
            assert await asyncio.to_thread(slow.kept_back.wait, 10)
            asking.cancel()
            await _is_cancelled(asking)
            await _goes_on(connection)


async def test_a_statement_is_cancelled_whose_answer_is_there(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read already, so no more comes: neither the task nor the connection waits for that."""
    readable = Connection._readable

    def read_and_cancel(self: Connection) -> None:
        readable(self)
        asking.cancel()

    async with await connect_async(database_url):
        pass  # from here on the server is known: a new connection asks nothing, and its socket is not registered
    async with await connect_async(database_url) as connection:
        monkeypatch.setattr(Connection, "_readable", read_and_cancel)
        asking = asyncio.create_task(connection.execute("SELECT 1"))
        await _is_cancelled(asking)
        monkeypatch.undo()
        await _goes_on(connection)


@pytest.mark.parametrize("again", [False, True])
async def test_a_statement_that_does_not_end_is_ended_with_its_connection(
    database_url: str, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """When it was given time, or its task is cancelled again: nobody may get a connection that waits for an answer."""
    if not again:
        monkeypatch.setattr("dbosflow._store.connection._LONGEST_CANCEL", 0.2)

    with closing(Slow(database_url, for_ever=True)) as slow:
        connection = await connect_async(slow.url)
        asking = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
        assert await asyncio.to_thread(slow.kept_back.wait, 10)
        asking.cancel()
        if again:
            assert await asyncio.to_thread(slow.asked.wait, 10)
            asking.cancel()
        await _is_cancelled(asking)
        assert connection.closed


async def test_notifications_come_while_the_connection_is_idle_busy_or_asked_for_them(database_url: str) -> None:
    """To handlers as soon as they are there, and to iterators: none is lost between the two."""
    async with await connect_async(database_url) as listener, await connect_async(database_url) as notifier:
        await listener.execute("LISTEN news")
        await notifier.execute("NOTIFY news, 'before anybody asks'")
        await notifier.execute("NOTIFY news, 'a second one'")
        received = [one.payload async for one in listener.notifies(timeout=60, stop_after=2)]
        assert received == ["before anybody asks", "a second one"]
        listener.add_notify_handler(lambda one: received.append(one.payload))
        await listener.execute("SELECT 1")
        await notifier.execute("NOTIFY news, 'idle'")
        await eventually_async(lambda: received[-1] == "idle")
        asking = asyncio.create_task(listener.execute("SELECT pg_sleep(0.1)"))
        await notifier.execute("NOTIFY news, 'busy'")
        await asking
        await eventually_async(lambda: received[-1] == "busy")


async def test_the_loop_forgets_a_closed_connection(database_url: str) -> None:
    """Its socket's number is soon that of another one, which the loop must be able to watch."""
    loop = asyncio.get_running_loop()
    connection = await connect_async(database_url)
    await connection.execute("SELECT 1")
    numbers = {connection.pgconn.socket, connection._socket}
    await connection.close()
    assert not any(loop.remove_reader(number) for number in numbers)
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        receiving = asyncio.create_task(loop.sock_recv(left, 1))
        await asyncio.sleep(0)
        right.send(b"x")
        async with asyncio.timeout(60):
            assert await receiving == b"x"


class Deaf(Proxy):
    """Reads no more than a part of a large message, and hangs up on request."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.received = threading.Event()
        self.hang_up = threading.Event()

    def sent(self, client: socket.socket, data: bytes) -> None:
        if len(data) > 4096:
            self.received.set()
            self.hang_up.wait(60)
            client.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def deaf(database_url: str) -> Iterator[Deaf]:
    proxy = Deaf(database_url)
    yield proxy
    proxy.hang_up.set()
    proxy.close()


async def test_a_session_that_ends_while_a_statement_waits_for_room_fails_it(deaf: Deaf) -> None:
    """The statement does not fit into the socket, nobody reads it, and libpq closes that before the loop knows."""
    connection = await connect_async(deaf.url)
    await connection.execute("SELECT 1")
    asking = asyncio.create_task(connection.execute("SELECT %s::text", (LARGE,)))
    assert await asyncio.to_thread(deaf.received.wait, 10)
    deaf.hang_up.set()
    async with asyncio.timeout(60):
        with pytest.raises(psycopg.OperationalError):
            await asking
    await connection.close()


async def test_a_statement_whose_connection_is_closed_fails(database_url: str) -> None:
    """By another task, while it waits."""
    connection = await connect_async(database_url)
    asking = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
    await eventually_async(lambda: connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE)
    await connection.close()
    async with asyncio.timeout(60):
        with pytest.raises(psycopg.OperationalError):
            await asking
