"""Says in the worker's row what this worker serves: its queues, the workflows that it knows, its version.

A lease is registered with what is served then; this writes what has changed afterwards. Claims do not depend on it. It
is for people who ask why a workflow waits, which queues nobody serves, and which versions are live; and for workers of
other code, which see whose schedules count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._runtime.queues.claimer import RECOVERY_QUEUE
from dbosflow._store import worker
from dbosflow._store.worker import Served

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._runtime.queues.claimer import Claimer
    from dbosflow.config import Settings
    from dbosflow.registry import Registry
    from dbosflow.schedule_definitions import DeclaredSchedules

_INTERVAL = 10.0
"""Seconds until a module that was imported meanwhile is noticed."""


def served(claimers: Iterable[Claimer], registry: Registry, settings: Settings, schedules: DeclaredSchedules) -> Served:
    """What a worker serves by these claimers; what was started in a process that died is served by every worker."""
    queues = {RECOVERY_QUEUE, *(claimer.queue for claimer in claimers)}
    names = tuple(sorted(registry.names()))
    return Served(tuple(sorted(queues)), names, settings.version, schedules.fingerprints())


class Roster(Service):
    """Writes the worker's entry when it has changed."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str, lease: WorkerLease) -> None:
        super().__init__("roster", interval=_INTERVAL)
        self._pool = pool
        self._schema = schema
        self._lease = lease

    async def work_once(self) -> bool:
        """Writes what has changed; mostly nothing."""
        worker_id, now = self._lease.id, self._lease.serves()
        if now is not None and now != self._lease.served:
            async with self._pool.connection() as connection:
                await worker.serve(connection, self._schema, worker_id, now)
            if self._lease.id == worker_id:
                self._lease.served = now
        return False
