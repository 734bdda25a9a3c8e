"""The pool of an engine, and the detection of a pooler between it and the server."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from dbosflow._sessions import POOL, wanted
from dbosflow._store.connect import PoolConnection, check_session, connect_async
from dbosflow._store.notify import can_notify, is_direct
from dbosflow._store.setup import Wish

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from dbosflow.config import Settings

_PROBE_PATIENCE = 1.0
"""Seconds for a NOTIFY to reach a LISTEN, which takes a millisecond; a pooler swallows it."""
_PREPARE_AFTER = 3
"""Runs of a statement on a pooled connection before it is prepared: a rare statement is not worth a round trip."""

logger = logging.getLogger("dbosflow.engine")


async def is_pooled(url: str, settings: Settings) -> bool:
    """Connects, and finds out whether there is a pooler in transaction mode before the server.

    The connection assumes one: a statement prepared in a pooler's session stays for the client that gets it next.
    """
    patience = settings.connect_timeout
    async with await connect_async(url, timeout=patience, pooled=True) as listener:
        if settings.pooled is False:
            return False
        if settings.pooled is None:
            async with await connect_async(url, timeout=patience, pooled=True) as notifier:
                with listener.given_up_after(patience), notifier.given_up_after(patience):
                    if not await _swallows(listener, notifier, settings.schema):
                        return False
        with listener.given_up_after(patience):
            await check_session(listener)
        if settings.pooled:
            return True
    if settings.listen_url is None:
        logger.warning(
            "a NOTIFY does not reach a LISTEN: there seems to be a pooler in transaction mode. Polling each %s s "
            "instead; give listen_url=, a direct URL, for wake-ups at once",
            settings.fast_poll,
        )
    return True


async def _swallows(listener: AsyncConnection[Any], notifier: AsyncConnection[Any], schema: str) -> bool:
    """Whether a NOTIFY gets lost between the two; where the server takes none, whether their numbers are a pooler's."""
    try:
        return not await can_notify(listener, notifier, schema, patience=_PROBE_PATIENCE)
    except (psycopg.errors.ProgramLimitExceeded, psycopg.errors.LockNotAvailable) as error:
        logger.warning("the server takes no NOTIFY just now, so other processes are woken by polls: %s", error)
    return not await is_direct(notifier)


class Pool(AsyncConnectionPool[Any]):
    """A pool that no cancellation is lost in, neither a client's nor its own tasks'.

    Until Python 3.12, ``asyncio.wait_for`` takes no notice of one that comes together with the end of its wait, and the
    pool waits with it. A timeout that passed just then would never end what it stands around.

    The tasks of the pool, besides, take one for a failure of what they are doing, and go on. So ``asyncio.run``, which
    cancels all tasks at its end and waits for them, would never return if nobody has closed the engine and the pool is
    connecting in that moment. A task that does end closes the pool then, and that ends the others.
    """

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:  # noqa: ASYNC109, FBT001, FBT002 (as its base has it)
        """Opens the pool, like the base class."""
        await super().open(wait, timeout)
        self._closer = asyncio.create_task(self._close_with_the_loop(), name=f"{self.name}-closer")

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 (as its base has it)
        """Closes the pool, like the base class."""
        self._closer.cancel()
        await super().close(timeout)

    async def _close_with_the_loop(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await super().close()

    async def getconn(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 (as its base has it)
        """A connection of the pool, like the base class."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        connection = await super().getconn(timeout)
        if task is not None and task.cancelling() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection


async def open_pool(url: str, settings: Settings) -> AsyncConnectionPool[Any]:
    """The opened pool of an engine, for its queries."""
    pool = Pool(
        url,
        connection_class=PoolConnection,
        min_size=1,
        max_size=settings.pool_size,
        kwargs={
            "autocommit": True,
            # A pooler would run a prepared statement on a connection that does not know it.
            "prepare_threshold": None if settings.pooled else _PREPARE_AFTER,
            "wish": Wish(wanted(POOL, idle=settings.lease), is_own=not settings.pooled),
            "codecs": settings.chain,
        },
        timeout=settings.connect_timeout,
        open=False,
        name="dbosflow",
    )
    await pool.open()
    return pool
