"""Finds dead workers and returns their runs to their queues. Every other worker does so; nothing coordinates them.

Death is two statements, and must be. The first takes the worker's row FOR UPDATE, which no batch under way survives,
and sets it ``dead``. The second, with a snapshot taken after that, returns the worker's runs with ``epoch + 1``. So a
worker that claims such a run and loads its history sees every batch of the old owner, or that batch will never exist.

Evidence of death:

- *vanished*: the worker's process lived on this host, in this boot and pid namespace, and is gone. Seen at once through
  a pidfd where the system has them, else at the next survey.
- *expired*: its row was not renewed for the length of its lease, by the database's clock. Three guards keep a stopped
  database, an outage of this process or a clock that jumped from looking like the death of all: no lease expires within
  its own length after the server's start, after this process's first look (or the first one after a failed or late
  look), or after a jump of the database's clock against our monotonic one. A lease dated in the future is stale once it
  was watched unchanged for its length.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process import identity
from dbosflow._runtime.process.service import Service
from dbosflow._store import worker, workflow
from dbosflow._store.notify import DEATH_TOPIC, WORKERS_TOPIC, queue_topic, workflow_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.worker import SurveyedLease
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.reclaimer")

_SURVEYS_A_LEASE = 4
"""Surveys within the time of one lease: a worker that died silently is found a quarter of that time late."""
_CLOCK_JUMP = 1.0
"""Seconds by which the database's clock may drift against ours between two looks."""
_BUSY_PAUSE = 0.02
"""Seconds until the last batch of a dead process, which its server may still be writing, releases the worker's row."""


class Reclaimer(Service):
    """Surveys the leases of all workers."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        settings: Settings,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
        is_own: Callable[[UUID], bool],
    ) -> None:
        super().__init__("reclaimer", interval=settings.lease / _SURVEYS_A_LEASE)
        self._pool = pool
        self._settings = settings
        self._announce = announce
        self._is_own = is_own
        self._unsubscribe = wakeups.subscribe(WORKERS_TOPIC, self.wake)
        self._guard = _ClockGuard(settings.lease / 2)
        self._watched: dict[UUID, tuple[datetime, float]] = {}
        self._processes = _ProcessWatch(self.wake)
        self._forgotten_at = -math.inf

    async def close(self) -> None:
        """Ends the surveys."""
        self._unsubscribe()
        self._processes.close()
        await super().close()

    async def work_once(self) -> bool:
        """Makes one survey: marks the dead, then (in a later statement) returns their runs."""
        schema = self._settings.schema
        try:
            async with self._pool.connection() as connection:
                leases = await worker.survey(connection, schema)
                others = [lease for lease in leases if not self._is_own(lease.id)]
                self._guard.look(leases)
                vanished = [lease for lease in others if self._processes.has_vanished(lease)]
                expired = [lease for lease in others if lease not in vanished and self._has_expired(lease)]
                self._watched = {lease.id: self._watched[lease.id] for lease in others if lease.id in self._watched}
                marked: set[UUID] = set()
                for because, dead in (("vanished", vanished), ("expired", expired)):
                    if dead:
                        marked |= await worker.mark_dead(connection, schema, dead, because)
                requeued = await workflow.requeue(connection, schema, max_recoveries=self._settings.max_recoveries)
                await self._forget(connection)
        except BaseException:
            self._guard.reset()
            raise
        self._processes.follow(lease for lease in others if lease.id not in marked)
        self._announce_deaths(marked, requeued)
        if len(vanished) + len(expired) > len(marked):
            await asyncio.sleep(_BUSY_PAUSE)
            return True
        return False

    def _has_expired(self, lease: SurveyedLease) -> bool:
        renewed_at, since = self._watched.get(lease.id, (None, 0.0))
        now = time.monotonic()
        if renewed_at != lease.renewed_at:
            self._watched[lease.id] = (lease.renewed_at, now)
            since = now
        if not self._guard.trusts(lease):
            return False
        if lease.silent < 0:
            return now - since > lease.lease
        return lease.silent > lease.lease

    async def _forget(self, connection: Any) -> None:
        if time.monotonic() - self._forgotten_at > 3600:  # noqa: PLR2004 (rows of a day ago)
            self._forgotten_at = time.monotonic()
            await worker.forget(connection, self._settings.schema)

    def _announce_deaths(self, marked: set[UUID], requeued: list[dict[str, Any]]) -> None:
        if marked:
            logger.warning("%d worker(s) are dead; %d of their workflows go on", len(marked), len(requeued))
        topics = [queue_topic(queue) for queue in {row["queue"] for row in requeued}]
        topics += [workflow_topic(row["id"]) for row in requeued]
        for row in requeued:
            if row["status"] == "blocked":
                logger.error("workflow %s is parked as blocked: its workers died again and again", row["id"])
        if marked:
            # Announced to all subscribers, which read again: this covers commits whose hint died with their worker.
            topics += [WORKERS_TOPIC, DEATH_TOPIC]
        if topics:
            self._announce(topics)


class _ClockGuard:
    """Decides whether the database's clock can be believed when a lease is over by it."""

    def __init__(self, longest_pause: float) -> None:
        self._longest_pause = longest_pause
        self._trusted_since: float | None = None
        self._looked_at = 0.0
        self._last: tuple[float, float] | None = None

    def reset(self) -> None:
        """Notes a failed look: the silence until the next one may be the fault of this process."""
        self._trusted_since = self._last = None

    def look(self, leases: list[SurveyedLease]) -> None:
        """Compares the progress of the database's clock with that of our own."""
        now = time.monotonic()
        clock = leases[0].clock if leases else None
        if (
            now - self._looked_at > self._longest_pause
        ):  # also when a look comes late: what delayed this process may have delayed all
            self._trusted_since = None
        self._looked_at = now
        if self._trusted_since is None:
            self._trusted_since = now
        elif clock is not None and self._last is not None:
            drift = (clock - self._last[0]) - (now - self._last[1])
            if abs(drift) > _CLOCK_JUMP:
                logger.warning("the database's clock jumped by %.1f s; no lease expires for a while", drift)
                self._trusted_since = now
        self._last = None if clock is None else (clock, now)

    def trusts(self, lease: SurveyedLease) -> bool:
        """Whether the server, this process and the clock have all run on for the length of this lease."""
        since = self._trusted_since
        return since is not None and time.monotonic() - since > lease.lease and lease.server_age > lease.lease


class _ProcessWatch:
    """Is notified at once when a process on this host ends, where the system has pidfds (Linux)."""

    def __init__(self, on_ended: Callable[[], None]) -> None:
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._descriptors: dict[UUID, int] = {}

    def has_vanished(self, lease: SurveyedLease) -> bool:
        """Whether the worker's process is certainly gone."""
        return identity.is_local(lease.process) and identity.has_vanished(lease.process)

    def follow(self, leases: Iterable[SurveyedLease]) -> None:
        """Watches the processes of these workers, and no others."""
        wanted = {lease.id: lease for lease in leases if identity.is_local(lease.process)}
        for worker_id in self._descriptors.keys() - wanted.keys():
            self._drop(worker_id)
        for worker_id in wanted.keys() - self._descriptors.keys():
            self._watch(wanted[worker_id])

    def close(self) -> None:
        """Ends the watch of all processes."""
        for worker_id in tuple(self._descriptors):
            self._drop(worker_id)

    def _watch(self, lease: SurveyedLease) -> None:
        if not hasattr(os, "pidfd_open") or lease.process.pid == os.getpid():
            return
        try:
            descriptor = os.pidfd_open(lease.process.pid)
        except OSError:
            self._on_ended()  # gone already: survey again
            return
        self._descriptors[lease.id] = descriptor
        try:
            self._loop.add_reader(descriptor, self._ended, lease.id)
        except (NotImplementedError, OSError):
            self._drop(lease.id)

    def _ended(self, worker_id: UUID) -> None:
        self._drop(worker_id)
        self._on_ended()

    def _drop(self, worker_id: UUID) -> None:
        descriptor = self._descriptors.pop(worker_id, None)
        if descriptor is not None:
            with contextlib.suppress(NotImplementedError):
                self._loop.remove_reader(descriptor)
            os.close(descriptor)
