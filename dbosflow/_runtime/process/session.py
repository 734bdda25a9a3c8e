"""A connection of its own for a service, or shared by some: made on first use, and replaced when it breaks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dbosflow._sessions import wanted
from dbosflow._store.connect import connect_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dbosflow._store.connection import Connection
    from dbosflow.config import Settings


class Session:
    """One connection, in autocommit, with settings that are ``special`` to it (those of ``dbosflow._sessions``).

    The user lets the database's errors through, and asks again: the next ``turn()`` replaces a broken connection.
    It is made within ``timeout`` seconds, by default ``connect_timeout``, which is never exceeded.
    """

    def __init__(
        self, url: str, settings: Settings, special: Mapping[str, str], *, timeout: float | None = None
    ) -> None:
        self._url = url
        self._settings = settings
        self._special = special
        self._timeout = settings.connect_timeout if timeout is None else min(timeout, settings.connect_timeout)
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None

    @property
    def ready(self) -> Connection | None:
        """The connection, if there is one that works as far as is known."""
        connection = self._connection
        return None if connection is None or connection.closed or connection.broken else connection

    @property
    def backend_pid(self) -> int | None:
        """The server process of the connection, if there is one."""
        connection = self.ready
        return None if connection is None else connection.info.backend_pid

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Connection]:
        """The connection, for the caller alone. Raises if there is none in time."""
        async with self._lock:
            connection = self.ready
            if connection is None:
                await self.close()
                connection = self._connection = await self._connect()
            yield connection

    async def close(self) -> None:
        """Disconnects."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> Connection:
        settings = self._settings
        connection = await connect_async(
            self._url,
            timeout=self._timeout,
            pooled=bool(settings.pooled),
            settings=wanted(self._special, idle=settings.lease),
            codecs=settings.chain,
        )
        if not settings.pooled:  # a statement prepared behind a pooler is prepared for the next client
            connection.prepare_threshold = 0
        return connection
