"""Runs one named statement: the few lines that the table modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import DictRow, dict_row

from dbosflow._store import statements

if TYPE_CHECKING:
    from psycopg import AsyncConnection

Rows = list[DictRow]


async def fetch_all(connection: AsyncConnection[Any], schema: str, table: str, name: str, /, **values: Any) -> Rows:
    """The rows of statement ``name`` of ``sql/<table>.sql``."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statements.literal(statements.load(table, schema)[name]), values)
        return await cursor.fetchall() if cursor.description else []
