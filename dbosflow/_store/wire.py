"""Hot statements over libpq itself, by psycopg's ``psycopg.pq``.

A cursor of psycopg's looks for the type of each parameter, for the statement's name and for a loader of each result, at
each execution: for a batch of one record about as long as Postgres takes for it. Here all of that is known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psycopg import generators
from psycopg.errors import ReadOnlySqlTransaction, error_from_result
from psycopg.pq import ExecStatus, Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection
    from psycopg.pq.abc import PGresult

_prepared: WeakKeyDictionary[AsyncConnection[Any], set[bytes]] = WeakKeyDictionary()
"""The names of what was prepared on each connection."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with parameters ``$1`` and so on, and the type ids of these."""

    name: bytes
    text: bytes
    types: Sequence[int]


async def execute(
    connection: AsyncConnection[Any], statement: Statement, values: Sequence[bytes | None], *, prepare: bool
) -> PGresult:
    """The result of a statement, its values in text format. The caller has the connection for itself, in autocommit.

    Args:
        connection: of psycopg's.
        statement: prepared the first time on this connection, if ``prepare``.
        values: of the parameters, in binary format.
        prepare: not behind a pooler, where the next statement may meet another session.

    Raises:
        psycopg.Error: of the class of the SQLSTATE.
    """
    if not prepare:
        link, formats = connection.pgconn, [Format.BINARY] * len(values)
        link.send_query_params(statement.text, values, statement.types, formats)
    elif not send(connection, statement, values):
        connection.pgconn.send_prepare(statement.name, statement.text, statement.types)
        await answer(connection)
        _prepared.setdefault(connection, set()).add(statement.name)
        send(connection, statement, values)
    return await answer(connection)


def send(connection: AsyncConnection[Any], statement: Statement, values: Sequence[bytes | None]) -> bool:
    """Puts a statement on the wire before it returns, and then ``answer`` is to be awaited.

    ``False`` if it is not prepared yet, and nothing was sent.
    """
    if statement.name not in _prepared.get(connection, ()):
        return False
    connection.pgconn.send_query_prepared(statement.name, values, [Format.BINARY] * len(values))
    return True


async def answer(connection: AsyncConnection[Any]) -> PGresult:
    """Sends what is left to be sent, and waits until the server is ready for more; the one result, or its error."""
    results: list[PGresult] = await connection.wait(generators.execute(connection.pgconn))
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            error = error_from_result(result)
            if isinstance(error, ReadOnlySqlTransaction):
                # A primary that became a reader may keep its sessions. Whoever connects anew finds the one that writes.
                await connection.close()
            raise error
    return results[-1]
