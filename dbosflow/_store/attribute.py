"""The table ``attribute``: what users search workflows by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

_TABLE = "attribute"


async def update(
    connection: AsyncConnection[Any], schema: str, workflow_id: str, changes: Mapping[str, str | None]
) -> bool:
    """Sets attributes of a workflow, as JSON, and removes those that are ``None``. Returns whether there is one."""
    values = {name: value for name, value in changes.items() if value is not None}
    removed = [name for name, value in changes.items() if value is None]
    which = {"names": list(values), "values": list(values.values()), "removed": removed}
    return bool(await fetch_all(connection, schema, _TABLE, "update", workflow_id=workflow_id, **which))
