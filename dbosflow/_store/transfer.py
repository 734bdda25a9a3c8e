"""Reads and writes whole workflows, all rows of them, for exports and imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from dbosflow._store import statements
from dbosflow._store.queries import fetch_all, rights_named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from psycopg import AsyncConnection

_TABLE = "transfer"

TABLES = ("workflow", "step", "stream_block", "stream_trim", "attribute", "waiter", "used_units")
"""What a workflow consists of, in the order in which it is written: the workflows first."""
_FETCHED = 200
"""Rows that a cursor gets in one round trip."""

Row = tuple[str | None, ...]
"""The columns of a row in their text form."""


async def columns(connection: AsyncConnection[Any], schema: str) -> dict[str, list[str]]:
    """The columns of each table."""
    rows = await fetch_all(connection, schema, _TABLE, "columns", schema=schema, tables=list(TABLES))
    found = {row["table"]: row["columns"] for row in rows}
    return {table: found[table] for table in TABLES if table in found}


async def begin_export(connection: AsyncConnection[Any], schema: str) -> None:
    """Makes the transaction that has just begun one with a single snapshot."""
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await be_patient(connection, schema)


async def be_patient(connection: AsyncConnection[Any], schema: str) -> None:
    """Lets the transaction wait for a file as long as that takes."""
    await fetch_all(connection, schema, _TABLE, "patient")


async def tree(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> dict[str, str]:
    """The ids of a workflow and its descendants, parents first, with their statuses; empty without the workflow."""
    rows = await fetch_all(connection, schema, _TABLE, "tree", workflow_id=workflow_id)
    return {row["id"]: row["status"] for row in rows}


async def ancestors(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> set[str]:
    """The ids of a workflow's parent, of that one's parent, and so on."""
    return {row["id"] for row in await fetch_all(connection, schema, _TABLE, "ancestors", workflow_id=workflow_id)}


async def shared(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """The forks among them that have not ended, each with a child that it shares, and with that one's parent."""
    rows = await fetch_all(connection, schema, _TABLE, "shared", ids=list(ids))
    return [(row["id"], row["child_id"], row["parent_id"]) for row in rows]


async def existing(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> list[str]:
    """Those of the ids that are taken, in order."""
    return sorted(row["id"] for row in await fetch_all(connection, schema, _TABLE, "existing", ids=list(ids)))


async def rows(
    connection: AsyncConnection[Any], schema: str, table: str, names: Sequence[str], ids: Sequence[str]
) -> AsyncIterator[Row]:
    """A table's rows of these workflows, fetched some at a time within the transaction."""
    parts = {
        "columns": ", ".join(f"{statements.quoted(name)}::text" for name in names),
        "table": statements.quoted(table),
        "key": "id" if table == "workflow" else "workflow_id",
    }
    text = statements.prepare(statements.source(_TABLE)["export_rows"], schema, parts)
    with rights_named(schema):
        async with connection.cursor(name="dbosflow_export", row_factory=tuple_row) as cursor:
            cursor.itersize = _FETCHED
            await cursor.execute(statements.literal(text), {"ids": list(ids)})
            async for row in cursor:
                yield row


async def insert(
    connection: AsyncConnection[Any], schema: str, table: str, names: Sequence[str], values: Sequence[Row]
) -> None:
    """Inserts rows, with their columns in the order of ``names``."""
    parts = {"columns": ", ".join(map(statements.quoted, names)), "table": statements.quoted(table)}
    text = statements.prepare(statements.source(_TABLE)["import_rows"], schema, parts)
    with rights_named(schema):
        async with (
            connection.cursor() as cursor,
            cursor.copy(statements.literal(text.replace("%%", "%"))) as copy,
        ):
            for row in values:
                await copy.write_row(row)
