"""The table ``used_units``: what workflows have really used of the rates of their queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

_TABLE = "used_units"


class UsedUnits(NamedTuple):
    """A call that says how many units were really used."""

    workflow_id: str
    key: str
    """The call's own: a repeated one does not count again."""
    units: int
    queue: str
    """The workflow's, in its user's words."""
    epoch: int | None
    """In which the workflow's body has called; ``None`` for an attempt of a step."""


async def use(connection: AsyncConnection[Any], schema: str, calls: Sequence[UsedUnits]) -> list[str]:
    """Makes calls count, each of another workflow or key; returns the queues for which there may be units again."""
    ids, keys, units, queues, epochs = map(list, zip(*calls, strict=True))
    found = await fetch_all(
        connection, schema, _TABLE, "use", ids=ids, keys=keys, units=units, queues=queues, epochs=epochs
    )
    return [row["name"] for row in found]
