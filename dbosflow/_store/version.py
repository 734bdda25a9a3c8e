"""Versions of users' code: the workflows that are pinned to them, and the workers that carry them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows

_TABLE = "version"


async def pinned(connection: AsyncConnection[Any], schema: str) -> Rows:
    """Rows of ``version, status, workflows, oldest`` of the pinned workflows that have not ended."""
    return await fetch_all(connection, schema, _TABLE, "pinned")


async def carried(connection: AsyncConnection[Any], schema: str) -> Rows:
    """Rows of ``version, workers, runs`` of the live workers that carry a version."""
    return await fetch_all(connection, schema, _TABLE, "carried")


async def unpin(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> Rows:
    """Unpins workflows; returns rows of ``id, status, queue``, the last one null where there was nothing to do."""
    return await fetch_all(connection, schema, _TABLE, "unpin", ids=list(ids))
