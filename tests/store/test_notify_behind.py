"""Hints that follow a batch on its connection, in a transaction of their own."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._store.notify import behind, listen, stream_topic, topics_of
from dbosflow._store.wire import Statement, execute_and_follow
from tests.server import own_server
from tests.support import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from psycopg import AsyncConnection

SCHEMA = "dbosflow"
TOPIC = stream_topic("w", "k")
INSERT = Statement(b"insert_one", b"INSERT INTO one VALUES ($1)", (23,))
DIVIDE = Statement(b"divide", b"SELECT 1 / $1", (23,))


def number(value: int) -> list[bytes | None]:
    """As the only parameter."""
    return [value.to_bytes(4, "big")]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection in autocommit mode."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def rows(connection: AsyncConnection[Any], query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    return await (await connection.execute(query.encode())).fetchall()


async def heard(listener: AsyncConnection[Any]) -> list[str]:
    """The topics of the next notification."""
    async for notification in listener.notifies(timeout=TIMEOUT, stop_after=1):
        return topics_of(notification.payload)
    return []


async def hanging(other: AsyncConnection[Any], admin: AsyncConnection[Any]) -> asyncio.Task[Any]:
    """A commit with a NOTIFY that waits for a standby; until the server knows that it has to, none does."""

    async def commit() -> None:
        await other.execute("INSERT INTO one SELECT 0 FROM pg_notify('x', '')")

    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    task = asyncio.create_task(commit())
    async with asyncio.timeout(TIMEOUT):
        while not await rows(admin, waiting):
            if task.done():
                task = asyncio.create_task(commit())
    return task


async def test_hints_follow_what_is_committed(database_url: str) -> None:
    """Whoever hears of it finds the row; the connection is as before, with the settings of its session."""
    async with connected(database_url) as connection, connected(database_url) as listener:
        await connection.execute("CREATE TABLE one (number integer)")
        await listen(listener, SCHEMA, ["w" + part for part in map(str, range(32))])
        for value in range(2):
            result, followed = await execute_and_follow(connection, (INSERT, number(value)), behind(SCHEMA, [TOPIC]))
            assert (result.command_tuples, followed) == (1, True)
            assert await heard(listener) == [TOPIC]
            assert await rows(listener, "SELECT count(*) FROM one") == [(value + 1,)]
        settings = "SELECT current_setting('synchronous_commit'), current_setting('lock_timeout')"
        assert await rows(connection, settings) == [("on", "0")]


async def test_a_statement_that_fails_raises_whatever_follows_it(database_url: str) -> None:
    """What follows is a transaction of its own: a hint for nothing does no harm."""
    async with connected(database_url) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await execute_and_follow(connection, (DIVIDE, number(0)), behind(SCHEMA, [TOPIC]))
        result, followed = await execute_and_follow(connection, (DIVIDE, number(1)), behind(SCHEMA, [TOPIC]))
        assert (result.get_value(0, 0), followed) == (b"1", True)


async def test_what_follows_may_fail(database_url: str) -> None:
    """What was before it is committed."""
    async with connected(database_url) as connection:
        await connection.execute("CREATE TABLE one (number integer)")
        result, followed = await execute_and_follow(connection, (INSERT, number(1)), (DIVIDE, number(0)))
        assert (result.command_tuples, followed) == (1, False)
        assert await rows(connection, "SELECT * FROM one") == [(1,)]


async def test_a_connection_that_is_lost_while_it_sends_is_said_to_be(database_url: str) -> None:
    """And not to be in a wrong mode, as psycopg says of whatever happens at the end of the second transaction."""
    async with connected(database_url) as connection:
        await connection.execute("CREATE TABLE one (number integer)")
        await execute_and_follow(connection, (INSERT, number(1)), behind(SCHEMA, [TOPIC]))
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        with pytest.raises(psycopg.OperationalError, match=r"the connection was lost: ."):
            await execute_and_follow(connection, (INSERT, number(2)), behind(SCHEMA, [TOPIC]))
        assert connection.broken


async def test_hints_do_not_wait_for_a_session_that_holds_their_lock() -> None:
    """A commit with a NOTIFY holds it until it is flushed everywhere: here for ever, on a standby that is not there."""
    with own_server() as server:
        async with connected(server.url) as connection, connected(server.url) as other, connected(server.url) as admin:
            await admin.execute("CREATE TABLE one (number integer)")
            await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            await admin.execute("SELECT pg_reload_conf()")
            await connection.execute("SET synchronous_commit = local")
            commit = await hanging(other, admin)
            result, followed = await execute_and_follow(connection, (INSERT, number(1)), behind(SCHEMA, [TOPIC]))
            assert (result.command_tuples, followed) == (1, False)
            await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await admin.execute("SELECT pg_reload_conf()")
            await commit
            assert (await execute_and_follow(connection, (INSERT, number(2)), behind(SCHEMA, [TOPIC])))[1]
