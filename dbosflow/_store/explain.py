"""The facts by which a workflow's state is explained: from rows only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import partition_of, queue_of
from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow

    from dbosflow._store.queries import Rows

_TABLE = "explain"

MANY = 1000
"""How far workflows of a queue are counted."""
_FEW = 10
"""How many of a kind are told: timers, retries, bodies, children."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What rows tell about one workflow."""

    subject: DictRow
    """The workflow's row, and its owner's."""
    workers: Rows
    """The live workers."""
    queue: DictRow | None
    """For a queued one: how many are before it, and how many run."""
    limits: DictRow | None = None
    """For a queued one of a queue with limits: these, and how many run."""
    timers: Rows = field(default_factory=list)
    retries: Rows = field(default_factory=list)
    bodies: Rows = field(default_factory=list)
    waiters: Rows = field(default_factory=list)
    children: Rows = field(default_factory=list)
    outbox: Rows = field(default_factory=list)


async def facts(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> Facts | None:
    """The facts about a workflow, all of one moment; ``None`` if there is no such workflow."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = await fetch_all(connection, schema, _TABLE, "subject", workflow_id=workflow_id)
        if not found:
            return None
        subject = found[0]
        workers = await fetch_all(connection, schema, _TABLE, "workers")
        if subject["ended_at"] is not None:
            return Facts(subject, workers, None)
        queue = await _queue(connection, schema, subject) if subject["status"] == "queued" else None
        limits = await _limits(connection, schema, subject) if queue else []
        lists = {
            name: await fetch_all(connection, schema, _TABLE, name, workflow_id=workflow_id, limit=_FEW)
            for name in ("timers", "retries", "bodies", "waiters", "children", "outbox")
        }
        return Facts(subject, workers, queue, limits[0] if limits else None, **lists)


async def workers(connection: AsyncConnection[Any], schema: str) -> Rows:
    """The live workers, each with what it has said that it serves."""
    return await fetch_all(connection, schema, _TABLE, "workers")


async def _limits(connection: AsyncConnection[Any], schema: str, subject: DictRow) -> Rows:
    where = {"name": queue_of(subject["queue"]), "partition": partition_of(subject["queue"]) or ""}
    return await fetch_all(connection, schema, _TABLE, "limits", units=subject["units"], **where)


async def _queue(connection: AsyncConnection[Any], schema: str, subject: DictRow) -> DictRow:
    place = {name: subject[name] for name in ("queue", "priority", "created_at")}
    (row,) = await fetch_all(connection, schema, _TABLE, "queue", workflow_id=subject["id"], limit=MANY, **place)
    return row
