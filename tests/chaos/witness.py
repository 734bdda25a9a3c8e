"""Looks at the database throughout a run: an end, once there, never changes; nobody idles in a transaction."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from tests.chaos.oracles_workers import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chaos.plan import Job

_PAUSE = 1.0
_SLOW = 1.0
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


class Witness:
    """Takes samples on a connection of its own, whatever happens to that."""

    def __init__(self, url: str) -> None:
        self.samples = 0
        self.slow: list[Span] = []
        """When a look took so long that leases may have waited for the server, too."""
        self.complaints: list[str] = []
        self._url = url
        self._ends: dict[str, tuple[Any, ...]] = {}
        self._since = "-infinity"

    async def watch(self) -> None:
        """Takes a sample each second until it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.sample)
            except psycopg.OperationalError:  # the database is down: part of the plan
                continue
            finally:
                await asyncio.sleep(_PAUSE)

    def compare(self) -> list[str]:
        """What has changed since it was seen first, or is gone."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            last = {row[0]: row[1:] for row in connection.execute(_ALL_ENDS)}
        for workflow_id, end in self._ends.items():
            self._compare(workflow_id, end, last.get(workflow_id))
        return self.complaints

    def sample(self) -> None:
        """Looks once."""
        since = time.time()
        with psycopg.connect(self._url, autocommit=True, connect_timeout=2) as connection:
            now = connection.execute(_NOW).fetchone()
            ends = connection.execute(_ENDS, (self._since,)).fetchall()
            idle = connection.execute(_IDLE).fetchall()
        assert now
        if time.time() - since > _SLOW:
            self.slow.append(Span(since, time.time()))
        self._since = now[0]
        self.samples += 1
        self.complaints += [
            f"session {pid} of {name} has been idle in a transaction for {age}" for name, pid, age in idle
        ]
        for workflow_id, *end in ends:
            if workflow_id in self._ends:
                self._compare(workflow_id, self._ends[workflow_id], tuple(end))
            self._ends.setdefault(workflow_id, tuple(end))

    def _compare(self, workflow_id: str, before: tuple[Any, ...], now: tuple[Any, ...] | None) -> None:
        if before != now:
            self.complaints.append(f"{workflow_id} had ended as {before}, and later stands as {now}")


class Readers:
    """What the reader processes say, and what they still owe."""

    def __init__(self) -> None:
        self.readings: list[dict[str, Any]] = []
        self.left: list[dict[str, Any]] = []
        self.ready = 0
        self.told: dict[tuple[str, str], float] = {}

    def hear(self, said: dict[str, Any]) -> None:
        """One line of one of them."""
        if "ready" in said:
            self.ready += 1
        elif "left" in said:
            self.left.append(said["left"])
        else:
            self.readings.append(said)

    def expect(self, job: Job) -> None:
        """One more stream is to be read."""
        self.told[job.workflow_id, job.key] = time.monotonic()

    def missing(self) -> list[tuple[str, str]]:
        """What nobody has said yet."""
        said = {(one["id"], one["key"]) for one in self.readings}
        return [stream for stream in self.told if stream not in said]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.readings)


def takeovers(hits: Sequence[Any], story: Any) -> Iterator[tuple[str, float, float]]:
    """For each loss of this workflow's owner: why, seconds until its next pass elsewhere, and until its next row."""
    row = story.row
    rows = [(step["epoch"], step["recorded_at"]) for step in story.steps]
    rows += [(block["epoch"], block["created_at"]) for block in story.blocks]
    if row["ended_at"] is not None:
        rows.append((row["epoch"], row["ended_at"]))
    for hit in hits:
        epoch = hit.owned.get(story.workflow_id)
        if epoch is None:
            continue
        passes = [line.at for line in story.lines if line.what == "pass" and line.at > hit.at and line.pid != hit.pid]
        written = [at for of, at in rows if of > epoch and at > hit.at]
        if passes and written:
            yield hit.kind, min(passes) - hit.at, min(written) - hit.at
