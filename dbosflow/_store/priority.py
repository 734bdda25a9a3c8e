"""Priorities of workflows that wait, in the table ``workflow``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows


async def set_priority(connection: AsyncConnection[Any], schema: str, ids: Sequence[str], priority: int) -> Rows:
    """Sets the priority of those that wait; returns rows of ``id, status, queue``, the last one null for the others."""
    return await fetch_all(connection, schema, "priority", "set", ids=list(ids), priority=priority)
