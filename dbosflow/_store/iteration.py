"""The earlier iterations of workflows that were continued as new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from psycopg import AsyncConnection


async def remove_earlier(connection: AsyncConnection[Any], schema: str, workflow_id: str, limit: int) -> int:
    """Removes up to ``limit`` records of earlier iterations; returns their number."""
    which = {"workflow_id": workflow_id, "limit": limit}
    (row,) = await fetch_all(connection, schema, "iteration", "remove_earlier", **which)
    return int(row["removed"])
