"""What waits in queues, in the tables ``workflow`` and ``outbox``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

_TABLE = "waiting"


async def work(connection: AsyncConnection[Any], schema: str, *, queue: str, names: Sequence[str], most: int) -> int:
    """How many workflows of these names wait in a queue, of which no more than ``most`` are counted."""
    rows = await fetch_all(connection, schema, _TABLE, "work", queue=queue, names=list(names), limit=most)
    return int(rows[0]["waiting"])


async def is_left(
    connection: AsyncConnection[Any],
    schema: str,
    *,
    queues: Mapping[str, str],
    names: Sequence[str],
    worker_id: UUID,
    refused: Collection[str],
) -> bool:
    """Whether anything is left that a worker could run which serves these queues, or that it has claimed.

    ``queues`` has for each stored queue its name in its user's words.
    """
    which = {"queues": [*queues], "spoken": [*queues.values()], "names": list(names), "refused": [*refused]}
    return bool((await fetch_all(connection, schema, _TABLE, "left", worker_id=worker_id, **which))[0]["is_left"])


async def unknown(connection: AsyncConnection[Any], schema: str, *, queue: str, names: Sequence[str]) -> list[str]:
    """The names of the workflows that wait in a queue, except the given ``names``."""
    rows = await fetch_all(connection, schema, _TABLE, "unknown", queue=queue, names=list(names))
    return [row["name"] for row in rows]
