"""Looks at the database throughout a run: an end, once there, never changes; nobody idles in a transaction."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from tests.chaos.stories import root_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

_PAUSE = 1.0
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
        self.complaints: list[str] = []
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
                await asyncio.sleep(_PAUSE)

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
            complaints, self.complaints = self.complaints, []
        return complaints

    def sample(self) -> None:
        """Takes one. None is taken while ends are compared: it would remember what is removed just then."""
        with (
            self._lock,
            psycopg.connect(self._url, autocommit=True, application_name="looking", connect_timeout=2) as connection,
        ):
            now = connection.execute(_NOW).fetchone()
            ends = connection.execute(_ENDS, (self._since,)).fetchall()
            idle = connection.execute(_IDLE).fetchall()
            assert now
            self._since = now[0]
            self.samples += 1
            self.complaints += [
                f"session {pid} of {name} has been idle in a transaction for {age}" for name, pid, age in idle
            ]
            for workflow_id, *end in ends:
                self._compare(workflow_id, self._ends.setdefault(workflow_id, tuple(end)), tuple(end))

    def _compare(self, workflow_id: str, before: tuple[Any, ...], now: tuple[Any, ...] | None) -> None:
        if before != now:
            self._ends.pop(workflow_id, None)  # it is said once
            self.complaints.append(f"{workflow_id} had ended as {before}, and later stands as {now}")


class Readers:
    """What the reader processes say, and what they still owe."""

    def __init__(self) -> None:
        self.left: list[dict[str, Any]] = []
        self.ready = 0
        self.levels: dict[int, dict[str, int]] = {}
        """What each process said of itself last."""
        self._said: dict[str, list[dict[str, Any]]] = {}
        self._owed: Counter[str] = Counter()

    def hear(self, number: int, said: dict[str, Any]) -> None:
        """One line of one of them."""
        if "ready" in said:
            self.ready += 1
        elif "level" in said:
            self.levels[number] = said["level"]
        elif "left" in said:
            self.left.append(said["left"])
        else:
            self._said.setdefault(said["id"], []).append(said)
            self._owed[said["id"]] -= 1

    def expect(self, workflow_id: str) -> None:
        """One more stream of a workflow is to be read."""
        self._owed[workflow_id] += 1

    def owe(self, workflow_id: str) -> bool:
        """Whether a reader of a workflow has not come to its end."""
        return self._owed[workflow_id] > 0

    def missing(self) -> list[str]:
        """The workflows whose readers have not come to their ends."""
        return [workflow_id for workflow_id, count in [*self._owed.items()] if count > 0]

    def take(self, workflow_id: str) -> list[dict[str, Any]]:
        """What the readers of a workflow saw; it is forgotten here."""
        del self._owed[workflow_id]
        return self._said.pop(workflow_id, [])


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
