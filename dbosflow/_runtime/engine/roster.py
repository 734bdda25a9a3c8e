"""Says in the worker's row what this worker serves: its queues, and the names of the workflows that it knows.

Nothing depends on it but what people are told: why a workflow waits, and which queues nobody serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._store import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow.definitions import Registry

_INTERVAL = 10.0
"""Seconds until a new lease, or a module that was imported meanwhile, is noticed."""


class Roster(Service):
    """Writes the worker's entry when it has changed, or the lease is another one."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        schema: str,
        lease: WorkerLease,
        registry: Registry,
        queues: Callable[[], Iterable[str]],
    ) -> None:
        super().__init__("roster", interval=_INTERVAL)
        self._pool = pool
        self._schema = schema
        self._lease = lease
        self._registry = registry
        self._queues = queues
        self._written: object = None

    async def work_once(self) -> bool:
        """Writes what has changed; mostly nothing."""
        worker_id, queues, names = self._lease.id, sorted(set(self._queues())), sorted(self._registry.names())
        entry = (worker_id, queues, names)
        if entry != self._written:
            async with self._pool.connection() as connection:
                await worker.serve(connection, self._schema, worker_id, queues, names)
            self._written = entry
        return False
