"""Checks final states throughout a run: an end, once there, never changes; and no session idles in a transaction."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from tests.chaos.checkers.workers import Span
from tests.chaos.history.workflow_history import root_of

if TYPE_CHECKING:
    from collections.abc import Container

_PAUSE = 1.0
_SLOW = 1.0
_STARVED = 0.5
"""Seconds by which a pause is too long if the machine had no time for this process: nor had it for who renews."""
_KEPT = 300
_ENDS: LiteralString = """
    SELECT id, status, epoch, ended_at::text, md5(output::text), md5(error::text) FROM dbosflow.workflow
    WHERE ended_at > %s::timestamptz - interval '15 seconds'"""
_ALL_ENDS: LiteralString = """
    SELECT id, status, epoch, ended_at::text, md5(output::text), md5(error::text) FROM dbosflow.workflow
    WHERE ended_at IS NOT NULL"""
_NOW: LiteralString = "SELECT now()::text"
_IDLE: LiteralString = """
    SELECT application_name, pid, now() - state_change FROM pg_stat_activity
    WHERE state LIKE 'idle in transaction%' AND now() - state_change > interval '10 seconds'"""


class FinalStateMonitor:
    """Takes samples on a connection of its own, whatever happens to that."""

    def __init__(self, url: str) -> None:
        self.samples = 0
        self.slow: deque[Span] = deque(maxlen=_KEPT)
        """When a look or a pause took so long that renewals may have waited for the server or a processor, too."""
        self.violations: list[str] = []
        self._url = url
        self._ends: dict[str, tuple[Any, ...]] = {}
        self._since = "-infinity"
        self._lock = threading.Lock()

    async def watch(self) -> None:
        """Takes a sample each second until it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.sample)
            except psycopg.OperationalError:  # the database is down: part of the plan
                continue
            finally:
                since = time.time()
                await asyncio.sleep(_PAUSE)
                self.has_paused(since, time.time())

    def has_paused(self, since: float, until: float) -> None:
        """Notes a pause of ``watch``, if it took longer than that should."""
        if until - since > _PAUSE + _STARVED:
            self.slow.append(Span(since, until))

    def compare(self, *, removed: Container[str] = ()) -> list[str]:
        """What was wrong since it was asked last: an end has changed, or is gone but not with what is ``removed``."""
        with (
            self._lock,
            psycopg.connect(self._url, autocommit=True, application_name="looking") as connection,
        ):
            last = {row[0]: row[1:] for row in connection.execute(_ALL_ENDS)}
            for workflow_id, end in [*self._ends.items()]:
                now = last.get(workflow_id)
                if now is None and root_of(workflow_id) in removed:
                    del self._ends[workflow_id]
                else:
                    self._compare(workflow_id, end, now)
            violations, self.violations = self.violations, []
        return violations

    def sample(self) -> None:
        """Takes one. None is taken while ends are compared: it would remember what is removed just then."""
        with self._lock:
            since = time.time()
            now, ends, idle = self._look()
            if time.time() - since > _SLOW:
                self.slow.append(Span(since, time.time()))
            self._since = now
            self.samples += 1
            self.violations += [
                f"session {pid} of {name} has been idle in a transaction for {age}" for name, pid, age in idle
            ]
            for workflow_id, *end in ends:
                self._compare(workflow_id, self._ends.setdefault(workflow_id, tuple(end)), tuple(end))

    def _look(self) -> tuple[str, list[Any], list[Any]]:
        with psycopg.connect(self._url, autocommit=True, application_name="looking", connect_timeout=2) as connection:
            ((now,),) = connection.execute(_NOW).fetchall()
            ends = connection.execute(_ENDS, (self._since,)).fetchall()
            return now, ends, connection.execute(_IDLE).fetchall()

    def _compare(self, workflow_id: str, before: tuple[Any, ...], now: tuple[Any, ...] | None) -> None:
        if before != now:
            self._ends.pop(workflow_id, None)  # it is said once
            self.violations.append(f"{workflow_id} had ended as {before}, and later stands as {now}")
