"""What takes old data away: the beginnings of streams, and finished workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_TABLE = "retention"


async def trim(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, before: int) -> int | None:
    """Removes a stream's whole blocks before an offset; the first one that is there then, ``None`` without a stream."""
    which = {"workflow_id": workflow_id, "key": key}
    async with connection.transaction():
        await fetch_all(connection, schema, _TABLE, "hold", workflow_id=workflow_id)
        await fetch_all(connection, schema, _TABLE, "trim", **which, before=before)
        return await first(connection, schema, workflow_id, key)


async def first(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str) -> int | None:
    """The first offset of a stream that is still there."""
    (row,) = await fetch_all(connection, schema, _TABLE, "first", workflow_id=workflow_id, key=key)
    found: int | None = row["first"]
    return found


async def is_trimmed(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, producer: str) -> bool:
    """Whether values of a producer are gone."""
    which = {"workflow_id": workflow_id, "key": key, "producer": producer}
    return bool(await fetch_all(connection, schema, _TABLE, "trimmed", **which))


async def prune(connection: AsyncConnection[Any], schema: str, age: float, batch: int) -> int:
    """Removes up to ``batch`` workflows that ended more than ``age`` seconds ago; how many."""
    return len(await fetch_all(connection, schema, _TABLE, "prune", age=age, batch=batch))
