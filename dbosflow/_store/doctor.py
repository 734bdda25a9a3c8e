"""The queries of ``dbosflow doctor``. Nothing here writes, or creates what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import errors

from dbosflow._sessions import ASKED
from dbosflow._store import version
from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow

    from dbosflow._store.queries import Rows

_TABLE = "doctor"


async def server(connection: AsyncConnection[Any], schema: str) -> DictRow:
    """The session's role, place and clock. Durations are seconds, 0 for none."""
    return (await fetch_all(connection, schema, _TABLE, "server"))[0]


async def settings(connection: AsyncConnection[Any], schema: str) -> dict[str, str | None]:
    """The relevant settings in force in the session; None for settings that this server does not have."""
    rows = await fetch_all(connection, schema, "session", "settings", names=list(ASKED))
    return {row["name"]: row["value"] for row in rows}


async def connections(connection: AsyncConnection[Any], schema: str) -> DictRow:
    """The connection limits (-1 for none), and how many connections are in use."""
    return (await fetch_all(connection, schema, _TABLE, "connections"))[0]


async def state(connection: AsyncConnection[Any], schema: str) -> tuple[str, int]:
    """The schema's revision (an empty text if there is no schema), and the oldest code that may use it."""
    try:
        (row,) = await fetch_all(connection, schema, "schema_version", "read_state")
    except errors.UndefinedTable:
        return "", 0
    return row["revision"] or "", row["oldest_code"] or 0


async def rights(connection: AsyncConnection[Any], schema: str) -> DictRow:
    """Whether this role may use and migrate the schema, and the ``missing`` rights on its tables."""
    (row,) = await fetch_all(connection, schema, _TABLE, "schema_rights", schema=schema)
    missing = await fetch_all(connection, schema, _TABLE, "missing_rights", schema=schema)
    return {**row, "missing": {lack["table"]: lack["lacks"] for lack in missing}}


async def workers(connection: AsyncConnection[Any], schema: str) -> Rows:
    """The live workers, and the dead ones that still own workflows."""
    return await fetch_all(connection, schema, _TABLE, "workers")


async def queues(connection: AsyncConnection[Any], schema: str) -> Rows:
    """The queues in which workflows wait."""
    return await fetch_all(connection, schema, _TABLE, "queues")


async def unknown_names(connection: AsyncConnection[Any], schema: str) -> Rows:
    """The names of waiting workflows that no worker of their queue knows, with how many of each wait."""
    try:
        return await fetch_all(connection, schema, _TABLE, "unknown_names")
    except errors.UndefinedColumn:  # an older schema, in which no worker says what it knows
        return []


async def blocked(connection: AsyncConnection[Any], schema: str) -> int:
    """The number of workflows that are parked as blocked."""
    return int((await fetch_all(connection, schema, _TABLE, "blocked"))[0]["blocked"])


async def suspended(connection: AsyncConnection[Any], schema: str) -> DictRow:
    """How many workflows are suspended, ``waiting``, and how many of them should have been woken: ``overdue``."""
    return (await fetch_all(connection, schema, _TABLE, "suspended"))[0]


async def outbox(connection: AsyncConnection[Any], schema: str, longest: float, limit: int) -> DictRow:
    """How many rows are in the outbox, for how long, and for which workflows some wait longer than ``longest``."""
    try:
        return (await fetch_all(connection, schema, _TABLE, "outbox", longest=longest, limit=limit))[0]
    except errors.UndefinedTable:  # the schema is older
        return {"rows": 0, "longest": None, "ids": None}


async def schedules(connection: AsyncConnection[Any], schema: str) -> Rows:
    """The schedules: how late each is, whether live code declares it, and a blocked workflow that it has started."""
    try:
        return await fetch_all(connection, schema, _TABLE, "schedules")
    except errors.UndefinedTable:  # the schema is older
        return []


async def retention(connection: AsyncConnection[Any], schema: str, age: float, limit: int) -> DictRow | None:
    """How many workflows (up to a limit) ended more than ``age`` seconds ago, and whether a retention is on.

    ``None``: the schema is older than that.
    """
    try:
        return (await fetch_all(connection, schema, _TABLE, "retention", schema=schema, age=age, limit=limit))[0]
    except errors.UndefinedTable:
        return None


async def stranded(connection: AsyncConnection[Any], schema: str) -> dict[str, int]:
    """The numbers of unfinished workflows by the version to which they are pinned, if no live worker carries that."""
    try:
        carried = {row["version"] for row in await version.carried(connection, schema)}
    except errors.UndefinedColumn:  # the schema is older
        return {}
    found: dict[str, int] = {}
    for row in await version.pinned(connection, schema):
        if row["version"] not in carried:
            found[row["version"]] = found.get(row["version"], 0) + row["workflows"]
    return found
