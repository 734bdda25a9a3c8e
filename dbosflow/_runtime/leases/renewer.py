"""The renewer keeps an engine's worker lease alive: on a thread of its own, with a connection of its own.

So Python code that blocks the event loop cannot cost a lease; only C code that holds the interpreter's lock for longer
than the lease can, and then the fence keeps the data whole. A lease whose row is no longer live is not revived here:
the journal is notified, stops the worker's runs and takes a new lease.

While no connection can be had, as on a server that is full, the loop is asked to renew over one of its pool: second
best, since then code that blocks the loop keeps the renewals waiting, too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.process.threads import ThreadService
from dbosflow._sessions import wanted
from dbosflow._store import worker
from dbosflow._store.connect import connect
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.thread_connection import ThreadConnection
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.leases")

_RENEWALS_A_LEASE = 5
"""Renewals within the time of a lease: several in a row may fail, or be late, before the lease is over."""
_RETRY = 0.2
"""Seconds between a failed try and the next: even the shortest lease has time for a few."""


class RenewedLease(Protocol):
    """What the renewer asks of a lease, on its own thread."""

    @property
    def id(self) -> UUID:
        """The worker's id, which changes with the lease."""

    def renewed(self, sent_at: float, /) -> None:
        """The database has renewed the lease, no earlier than the request was sent, at ``sent_at``."""


class LeaseRenewer(ThreadService):
    """The thread that renews a lease."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        lease: RenewedLease,
        on_lease_over: Callable[[], None],
        pool: AsyncConnectionPool[Any],
    ) -> None:
        super().__init__("leases")
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._url = url
        self._settings = settings
        self._lease = lease
        self._on_lease_over = on_lease_over
        self._connection: ThreadConnection | None = None

    def run(self) -> None:
        """Renews until the engine closes."""
        pause = self._settings.lease / _RENEWALS_A_LEASE
        while self.goes_on(pause):
            pause = self._settings.lease / _RENEWALS_A_LEASE
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 (without this thread every lease would be lost)
                logger.warning("the lease of worker %s was not renewed: %s; trying again", self._lease.id, error)
                self._disconnect()
                pause = _RETRY
        self._disconnect()

    async def close(self) -> None:
        """Ends the renewals: an answer that is not there is waited for no more."""
        self.closing.set()
        if (connection := self._connection) is not None:
            connection.patience = 0.0
        await super().close()

    def _renew(self) -> None:
        lease = self._lease
        try:
            connection = self._connected()
        except (DatabaseUnavailableError, ConfigurationError) as error:
            worker_id, sent_at = lease.id, time.monotonic()
            live = self._renew_by_loop(worker_id, error)
        else:
            worker_id, sent_at = lease.id, time.monotonic()
            live = worker.renew(connection, self._settings.schema, [worker_id])
        if worker_id in live:
            if worker_id == lease.id:
                lease.renewed(sent_at)
        elif worker_id == lease.id:
            self._on_lease_over()

    def _connected(self) -> ThreadConnection:
        connection = self._connection
        if connection is None or connection.closed:
            silence = self._settings.lease / 2  # leaves time to try another connection, or another host
            connection = self._connection = connect(
                self._url,
                timeout=self._settings.lease / _RENEWALS_A_LEASE,
                pooled=bool(self._settings.pooled),
                silence=silence,
                # Else each statement that waits for a lock, and is given up, would leave a session behind that waits.
                settings=wanted({"statement_timeout": str(math.ceil(silence * 1000))}),
            )
        return connection

    def _renew_by_loop(self, worker_id: UUID, failure: Exception) -> set[UUID]:
        """Renews over the pool, or raises why this thread has no connection."""
        if self.closing.is_set():
            raise failure
        renewal = asyncio.run_coroutine_threadsafe(self._renew_over_pool(worker_id), self._loop)
        try:
            return renewal.result(self._settings.lease / _RENEWALS_A_LEASE)
        except Exception:  # noqa: BLE001 (whatever it is, it is the second failure)
            renewal.cancel()
            raise failure from None

    async def _renew_over_pool(self, worker_id: UUID) -> set[UUID]:
        async with self._pool.connection() as connection:
            return await worker.renew_async(connection, self._settings.schema, [worker_id])

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
