"""Removes old data: the beginnings of streams, and finished workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import AsyncConnection

_TABLE = "retention"

Place = tuple["datetime", str]
"""A workflow's position in the order of creation: its creation time and its id."""


async def trim(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, before: int) -> int | None:
    """Removes a stream's whole blocks before an offset. Returns the first offset left, ``None`` without a stream."""
    which = {"workflow_id": workflow_id, "key": key}
    async with connection.transaction():
        await fetch_all(connection, schema, _TABLE, "hold", workflow_id=workflow_id)
        await fetch_all(connection, schema, _TABLE, "trim", **which, before=before)
        return await first(connection, schema, workflow_id, key)


async def first(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str) -> int | None:
    """The first offset of a stream that is left."""
    rows = await fetch_all(connection, schema, _TABLE, "first", workflow_id=workflow_id, key=key)
    return int(rows[0]["first"]) if rows else None


async def is_trimmed(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, producer: str) -> bool:
    """Whether values of a producer have been removed."""
    which = {"workflow_id": workflow_id, "key": key, "producer": producer}
    return bool(await fetch_all(connection, schema, _TABLE, "trimmed", **which))


async def prune(connection: AsyncConnection[Any], schema: str, age: float, batch: int) -> int:
    """Removes up to ``batch`` workflows that ended more than ``age`` seconds ago; returns their number."""
    async with connection.transaction():
        ids = [row["id"] for row in await fetch_all(connection, schema, _TABLE, "choose", age=age, batch=batch)]
        await fetch_all(connection, schema, _TABLE, "remove", ids=ids)  # also none: who may not remove is told so
    return len(ids)


async def prunable(connection: AsyncConnection[Any], schema: str, age: float) -> int:
    """The number of workflows that ``prune`` would remove."""
    return int((await fetch_all(connection, schema, _TABLE, "prunable", age=age))[0]["workflows"])


async def scattered(
    connection: AsyncConnection[Any], schema: str, workflow_id: str, least: int, max_bytes: int
) -> list[str]:
    """The keys of a workflow's streams in which at least the given number of blocks could join their predecessors."""
    which = {"workflow_id": workflow_id, "least": least, "max_bytes": max_bytes}
    return [row["key"] for row in await fetch_all(connection, schema, _TABLE, "scattered", **which)]


async def compact(
    connection: AsyncConnection[Any],
    schema: str,
    workflow_id: str,
    key: str,
    start: int,
    *,
    max_blocks: int,
    max_bytes: int,
) -> int | None:
    """Compacts a part of an ended workflow's stream. Returns where to continue, ``None`` if nothing is left to do.

    Does nothing if another process holds the workflow.
    """
    async with connection.transaction():
        if not await fetch_all(connection, schema, _TABLE, "claim_ended", workflow_id=workflow_id):
            return None
        which = {"workflow_id": workflow_id, "key": key, "start": start}
        (row,) = await fetch_all(
            connection, schema, _TABLE, "compact", **which, max_blocks=max_blocks, max_bytes=max_bytes
        )
        found: int | None = row["next"]
        return found


async def ended_after(connection: AsyncConnection[Any], schema: str, place: Place, limit: int) -> list[Place]:
    """The next ended workflows in the order of creation."""
    created_at, workflow_id = place
    rows = await fetch_all(
        connection, schema, _TABLE, "ended_after", created_at=created_at, id=workflow_id, limit=limit
    )
    return [(row["created_at"], row["id"]) for row in rows]
