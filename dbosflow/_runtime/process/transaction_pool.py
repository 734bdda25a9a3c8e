"""The pool of connections for users' transactions, of both colours.

It is not the engine's pool: users' transactions, which may be long, keep no history and no cancellation waiting. A
connection is made when one is needed and none is free.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus

from dbosflow._store.attempts import FAILURES
from dbosflow._store.user_connection import SyncUserConnection, UserConnection, as_new

if TYPE_CHECKING:
    from dbosflow._store.user_connection import AnyUserConnection
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.transactions")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds between two attempts to connect, doubled at each."""


class TransactionPool:
    """Used on the engine's loop only. ``url`` is the database of the engine."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._places = asyncio.Semaphore(settings.transaction_pool_size)
        self._free: list[AnyUserConnection] = []
        self._taken = 0
        """Places that are taken: each has a connection, or will have one."""
        self._is_closed = False

    async def take(self, *, is_async: bool) -> AnyUserConnection:
        """A connection of the wanted colour. Waits for a place, and for the database as long as it is away."""
        await self._places.acquire()
        self._taken += 1
        try:
            kind = UserConnection if is_async else SyncUserConnection
            for place in range(len(self._free) - 1, -1, -1):
                if isinstance(self._free[place], kind):
                    return self._free.pop(place)
            if self._free and len(self._free) + self._taken > self._settings.transaction_pool_size:
                await _close(self._free.pop(0))  # of the other colour
            connection = await self._connect(is_async=is_async)
        except BaseException:
            self._leave()
            raise
        connection.codecs = self._settings.chain
        return connection

    async def _connect(self, *, is_async: bool) -> AnyUserConnection:
        settings, pause = self._settings, _FIRST_PAUSE
        while True:
            try:
                if is_async:
                    return await UserConnection.to(
                        self._url, timeout=settings.connect_timeout, pooled=bool(settings.pooled)
                    )
                return await asyncio.to_thread(
                    SyncUserConnection.to, self._url, timeout=settings.connect_timeout, pooled=bool(settings.pooled)
                )
            except FAILURES as error:
                logger.warning("no connection for a transaction yet: %s; trying again", type(error).__name__)
            await self._make_room()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _make_room(self) -> None:
        """Closes the free connections: they are broken, or take the server's last places."""
        free, self._free = self._free, []
        for connection in free:
            await _close(connection)

    async def give_back(self, connection: AnyUserConnection) -> None:
        """Takes a connection back, and closes it unless it is idle and as it was."""
        try:
            if self._is_closed or not _is_as_it_was(connection):
                await _close(connection)
            else:
                as_new(connection, pooled=bool(self._settings.pooled))
                self._free.append(connection)
        finally:
            self._leave()

    def abandon(self) -> None:
        """Counts off a connection that somebody else closes."""
        self._leave()

    def _leave(self) -> None:
        self._taken -= 1
        self._places.release()

    async def close(self) -> None:
        """Closes the free connections, and the others when they come back."""
        self._is_closed = True
        await self._make_room()


def _is_as_it_was(connection: AnyUserConnection) -> bool:
    """Whether the next function may have it: it is idle, and no cancel request is on its way to it."""
    if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    return isinstance(connection, UserConnection) or connection.is_over is None


async def _close(connection: AnyUserConnection) -> None:
    with suppress(psycopg.Error, OSError):
        if isinstance(connection, UserConnection):
            await connection.close()
        else:
            connection.close()
