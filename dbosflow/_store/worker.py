"""The table ``worker``: one row per worker lease, with the process that holds it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.rows import class_row

from dbosflow._records.pins import queue_of
from dbosflow._store import statements
from dbosflow._store.queries import fetch_all
from dbosflow.types import RunningWorkflow, WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection, Connection
    from psycopg.rows import DictRow

_TABLE = "worker"
_FACTS = ("id", "host", "pid", "version", "version_name", "started_at", "silent", "lease")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """The process of a worker, so that other processes of its host can tell whether it is gone."""

    host: str
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    process_started_at: str | None


@dataclass(frozen=True, slots=True)
class SurveyedLease:
    """A live worker's lease in a survey. Seconds are by the database's clock."""

    id: UUID
    renewed_at: datetime
    lease: float
    silent: float
    clock: float
    server_age: float
    process: ProcessIdentity


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A live or dead worker of this place. Seconds are by the database's clock."""

    pid: int
    process_started_at: str | None
    live: bool
    lease: float
    silent: float
    ended_because: str | None

    @property
    def in_time(self) -> bool:
        """Whether the lease was renewed in time. A renewal dated too far in the future does not count."""
        return abs(self.silent) <= self.lease


class Served(NamedTuple):
    """What a worker serves, for people to look at."""

    queues: tuple[str, ...]
    names: tuple[str, ...]
    """The names of the workflows that it knows."""
    version_name: str | None
    """The version that the user has given it."""
    schedules: str = "{}"
    """The schedules that its code declares: a JSON object of their fingerprints by name."""

    def columns(self) -> dict[str, Any]:
        """The columns of the worker's row."""
        return {**self._asdict(), "queues": list(self.queues), "names": list(self.names)}


_UNKNOWN = dict.fromkeys(Served._fields)


async def register(
    connection: AsyncConnection[Any],
    schema: str,
    *,
    worker_id: UUID,
    lease: float,
    process: ProcessIdentity,
    version: str,
    served: Served | None = None,
) -> None:
    """Adds a live worker."""
    more = _UNKNOWN if served is None else served.columns()
    await fetch_all(
        connection, schema, _TABLE, "register", id=worker_id, lease=lease, version=version, **asdict(process), **more
    )


async def serve(connection: AsyncConnection[Any], schema: str, worker_id: UUID, served: Served) -> None:
    """Says what a live worker serves."""
    await fetch_all(connection, schema, _TABLE, "serve", id=worker_id, **served.columns())


def renew(connection: Connection[Any], schema: str, ids: Sequence[UUID]) -> set[UUID]:
    """Renews the given workers; returns those that are still live. Blocking: the renewer has a thread of its own."""
    cursor = connection.execute(statements.literal(statements.load(_TABLE, schema)["renew"]), {"ids": list(ids)})
    return {row[0] for row in cursor.fetchall()}


async def renew_async(connection: AsyncConnection[Any], schema: str, ids: Sequence[UUID]) -> set[UUID]:
    """``renew`` on the loop."""
    return {row["id"] for row in await fetch_all(connection, schema, _TABLE, "renew", ids=list(ids))}


def of_place(connection: Connection[Any], schema: str, place: ProcessIdentity, pid: int | None) -> list[WorkerState]:
    """The workers of the machine or container of ``place``, the live ones first. Blocking: for a health check."""
    values = {name: value for name, value in asdict(place).items() if name in {"host", "boot_id", "pid_namespace"}}
    with connection.cursor(row_factory=class_row(WorkerState)) as cursor:
        cursor.execute(statements.literal(statements.load(_TABLE, schema)["of_place"]), {**values, "pid": pid})
        return cursor.fetchall()


async def release(connection: AsyncConnection[Any], schema: str, worker_id: UUID) -> None:
    """Ends the caller's own lease, over its own connection and after its last batch."""
    await fetch_all(connection, schema, _TABLE, "release", id=worker_id)


async def end_quarantine(
    connection: AsyncConnection[Any], schema: str, worker_id: UUID, workflow_id: str, *, acquitted: bool
) -> None:
    """Ends a quarantine: the worker's death no longer counts against that run alone. Acquittal clears its count."""
    which = {"id": worker_id, "workflow_id": workflow_id, "acquitted": acquitted}
    await fetch_all(connection, schema, _TABLE, "end_quarantine", **which)


async def survey(connection: AsyncConnection[Any], schema: str) -> list[SurveyedLease]:
    """All live workers."""
    rows = await fetch_all(connection, schema, _TABLE, "survey")
    names = ProcessIdentity.__dataclass_fields__
    return [
        SurveyedLease(
            process=ProcessIdentity(**{name: row[name] for name in names}),
            **{name: row[name] for name in row if name not in names},
        )
        for row in rows
    ]


async def mark_dead(
    connection: AsyncConnection[Any], schema: str, leases: Sequence[SurveyedLease], because: str
) -> set[UUID]:
    """Marks workers dead that are unchanged since they were seen and have no batch running; returns those marked."""
    rows = await fetch_all(
        connection,
        schema,
        _TABLE,
        "mark_dead",
        ids=[lease.id for lease in leases],
        renewed=[lease.renewed_at for lease in leases],
        because=because,
    )
    return {row["id"] for row in rows}


async def forget(connection: AsyncConnection[Any], schema: str) -> None:
    """Deletes the rows of workers that died long ago and own nothing."""
    await fetch_all(connection, schema, _TABLE, "forget")


async def status(connection: AsyncConnection[Any], schema: str) -> tuple[WorkerInfo, ...]:
    """The live workers, and what each of them runs."""
    found: list[WorkerInfo] = []
    for _, rows in groupby(await fetch_all(connection, schema, _TABLE, "status"), itemgetter("id")):
        of_worker = list(rows)
        facts = {name: of_worker[0][name] for name in _FACTS}
        queues = {queue_of(queue) for queue in of_worker[0]["queues"]} - {""}
        running = tuple(_running(row) for row in of_worker if row["workflow_id"] is not None)
        found.append(WorkerInfo(**facts, queues=tuple(sorted(queues)), running=running))
    return tuple(found)


def _running(row: DictRow) -> RunningWorkflow:
    queue = queue_of(row["workflow_queue"])
    return RunningWorkflow(row["workflow_id"], row["workflow"], queue, row["began_at"], row["age"])


async def older_than(connection: AsyncConnection[Any], schema: str, version: str) -> list[str]:
    """The live workers whose version is older, in words: host, process and version of each."""
    rows = await fetch_all(connection, schema, _TABLE, "versions")
    old = [row for row in rows if _numbers(row["version"]) < _numbers(version)]
    return [f"{row['host']} (process {row['pid']}, version {row['version']})" for row in old]


def _numbers(version: str) -> list[int]:
    """A version as numbers that compare as it does; what follows them is left out."""
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]
