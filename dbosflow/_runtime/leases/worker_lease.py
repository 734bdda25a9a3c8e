"""A worker lease: one row of ``worker`` and one connection. The row is the fence of everything its runs write.

```text
register ──► live ──renewed on the renewer's thread──► live
              │
              ├── release (by the worker, after its last batch) ──► dead
              └── reclaimed by a peer (FOR UPDATE: waits for no batch, and no batch begins after it) ──► dead
```

An engine that finds the row of its lease dead takes another lease: a fresh id, a fresh row, no runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import errors

from dbosflow._runtime.process.identity import this_process
from dbosflow._runtime.process.session import Session
from dbosflow._sessions import WORKER
from dbosflow._store import worker
from dbosflow._store.queries import fetch_all
from dbosflow.config import VERSION
from dbosflow.errors import DatabaseUnavailableError, EngineClosedError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.worker import Served
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.leases")


class _Turns(asyncio.Lock):
    """A lock with something to do at the end of each turn."""

    def __init__(self, at_end: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._at_end = at_end

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._at_end()
        finally:
            self.release()


class WorkerLease:
    """One connection and one lease. ``lock`` serializes what is sent over the connection.

    While it cannot be had, as on a server that is full, one of the ``pool`` takes its place until ``lock`` is released.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        pool: AsyncConnectionPool[Any],
        *,
        on_new_timeline: Callable[[], None],
    ) -> None:
        self.id = uuid.uuid4()
        self._lent = AsyncExitStack()
        """Gives the connection back if it is the pool's."""
        self.lock = _Turns(self._give_back)
        self.deadline = 0.0
        """When the lease ends at the latest, by this process's monotonic clock."""
        self._late: list[Callable[[], object]] = []
        """Calls whoever waits for the next renewal. The renewer's thread takes them one by one: none is lost."""
        self.serves: Callable[[], Served | None] = lambda: None
        """What the worker serves now, for its row."""
        self.served: Served | None = None
        """What its row says of that."""
        self._settings = settings
        self._session = Session(url, settings, WORKER, pool)
        self._connection: AsyncConnection[Any] | None = None
        self._is_closed = False
        self._timeline: str | None = None
        self._timeline_is_hidden = False
        self._on_new_timeline = on_new_timeline

    @property
    def in_time(self) -> bool:
        """Whether the worker certainly still has the lease."""
        return time.monotonic() < self.deadline

    @property
    def backend_pid(self) -> int | None:
        """The server process of the connection, if there is one."""
        connection = self._connection
        return None if connection is None or connection.closed else connection.info.backend_pid

    @property
    def hidden_timeline(self) -> str | None:
        """The timeline that a batch must be on, where the connection outlives a failover: behind a pooler."""
        return self._timeline if self._settings.pooled else None

    @property
    def timeline(self) -> str | None:
        """The server's timeline, as far as it can be seen."""
        return self._timeline

    def is_new(self, timeline: str) -> bool:
        """Whether the database is on another timeline than before, for which every run reloads."""
        before, self._timeline = self._timeline, timeline
        if before is None or before == timeline:
            return False
        logger.warning("the database is on timeline %s, it was on %s; reloading all runs", timeline, before)
        self._on_new_timeline()
        return True

    def renewed(self, sent_at: float) -> None:
        """The row was renewed by a statement sent at ``sent_at`` (monotonic). Called on the renewer's thread."""
        self.deadline = sent_at + self._settings.lease
        while self._late:
            self._late.pop()()

    def when_in_time(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once on the running loop, after the next renewal or at once if that has come meanwhile."""
        loop = asyncio.get_running_loop()
        self._late.append(partial(loop.call_soon_threadsafe, callback))
        if self.in_time:  # a renewal that came just before may not have seen it
            callback()

    async def open(self) -> None:
        """Connects and registers."""
        await self._register()

    async def connection(self) -> AsyncConnection[Any]:
        """The connection, made anew if it is broken. The caller holds ``lock``."""
        if self._is_closed:
            raise EngineClosedError("the engine was closed meanwhile")
        connection = self._connection
        if connection is None or connection.closed or connection.broken:
            await self.disconnect()
            connection = self._connection = await self._connect()
        return connection

    async def disconnect(self) -> None:
        """Drops the connection."""
        self._connection = None
        await self._lent.aclose()
        await self._session.close()

    async def _give_back(self) -> None:
        """Returns to the pool what it has lent: on a full server it may have nothing else for all others."""
        if self._connection is not self._session.ready:
            await self.disconnect()

    async def close(self) -> None:
        """Drops the connection, and makes no other one."""
        self._is_closed = True
        await self.disconnect()

    async def reopen(self) -> None:
        """Registers anew after the lease was lost. The caller holds ``lock``."""
        self.id = uuid.uuid4()
        await self._register()

    async def release(self) -> None:
        """Gives up the lease, so that peers need not wait for its end. The caller holds ``lock``."""
        await worker.release(await self.connection(), self._settings.schema, self.id)

    async def _register(self) -> None:
        sent_at, served = time.monotonic(), self.serves()
        await worker.register(
            await self.connection(),
            self._settings.schema,
            worker_id=self.id,
            lease=self._settings.lease,
            process=this_process(),
            version=VERSION,
            served=served,
        )
        self.served = served
        self.renewed(sent_at)

    async def _connect(self) -> AsyncConnection[Any]:
        connection = await self._session.connection(self._lent)
        try:
            await self.check_timeline(connection)
        except BaseException:
            await connection.close()
            await self.disconnect()
            raise
        return connection

    async def check_timeline(self, connection: AsyncConnection[Any]) -> None:
        """Checks for another timeline, by which a failover that lost commits shows: memory may be ahead of the tables.

        A standby has no timeline of its own yet: a session that began there and stays would write after the promotion,
        unchecked.
        """
        try:
            (row,) = await fetch_all(connection, self._settings.schema, "batch", "timeline")
        except errors.ObjectNotInPrerequisiteState as error:
            raise DatabaseUnavailableError(f"this server is a standby, and not promoted yet: {error}") from error
        except (errors.UndefinedFunction, errors.FeatureNotSupported, PermissionDeniedError) as error:
            if not self._timeline_is_hidden:
                self._timeline_is_hidden = True
                logger.warning(
                    "the server's timeline cannot be seen, so neither can a failover that lost commits: %s", error
                )
            return
        self.is_new(row["timeline"])
