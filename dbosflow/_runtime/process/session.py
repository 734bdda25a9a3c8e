"""A connection of its own for a service, or shared by some: made on first use, and replaced when it breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from psycopg_pool import PoolTimeout

from dbosflow._sessions import wanted
from dbosflow._store.connect import connect_async
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.connection import Connection
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.database")

_PATIENCE = 2.0
"""Seconds for which the user waits for the connection, and then for one of the pool's."""
_PAUSE = 10.0
"""Seconds until one attempt more, once there was none: the server may be full for long."""


class Session:
    """One connection, in autocommit, with settings that are ``special`` to it (those of ``dbosflow._sessions``).

    The user lets the database's errors through, and asks again: the next ``turn()`` replaces a broken connection. While
    none can be had, as on a server that is full, the user gets one of the ``pool``, without the special settings.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        special: Mapping[str, str],
        pool: AsyncConnectionPool[Any],
    ) -> None:
        self._url = url
        self._settings = settings
        self._special = special
        self._pool = pool
        self._connects_from = 0.0
        """When the next attempt is made to have a connection again; 0 as long as none has failed."""
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
        async with self._lock, AsyncExitStack() as lent:
            yield await self.connection(lent)

    async def connection(self, lent: AsyncExitStack) -> Connection:
        """The connection; if there is none, one that the pool lends until ``lent`` is closed. For one caller."""
        return self.ready or await self._replace(lent)

    async def close(self) -> None:
        """Disconnects."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _replace(self, lent: AsyncExitStack) -> Connection:
        """The connection, made anew; or one that the pool lends."""
        await self.close()
        failure: Exception | None = None
        if time.monotonic() >= self._connects_from:
            try:
                self._connection = await self._connect()
            except (DatabaseUnavailableError, ConfigurationError) as error:
                failure = error
                if not self._connects_from:
                    logger.warning("asking the pool instead: %s", error)
                self._connects_from = time.monotonic() + _PAUSE
            else:
                self._connects_from = 0.0
                return self._connection
        try:
            connection: Connection = await lent.enter_async_context(self._pool.connection(_PATIENCE))
        except PoolTimeout as error:
            self._connects_from = 0.0
            raise failure or error from None
        return connection

    async def _connect(self) -> Connection:
        settings = self._settings
        connection = await connect_async(
            self._url,
            timeout=0.0 if self._connects_from else min(_PATIENCE, settings.connect_timeout),
            pooled=bool(settings.pooled),
            settings=wanted(self._special, idle=settings.lease),
            codecs=settings.chain,
        )
        if not settings.pooled:  # a statement prepared behind a pooler is prepared for the next client
            connection.prepare_threshold = 0
        return connection
