"""Hot statements over libpq itself, by psycopg's :mod:`psycopg.pq`.

A cursor of psycopg's looks for the type of each parameter, for the statement's name and for a loader of each result, at
each execution: for a batch of one record about as long as Postgres takes for it. Here all of that is known beforehand.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection
    from psycopg.pq.abc import PGconn, PGresult

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

    Whoever is cancelled meanwhile loses the connection: nobody would read the answer.

    Args:
        connection: of psycopg's.
        statement: prepared the first time on this connection, if ``prepare``.
        values: of the parameters, in binary format.
        prepare: not behind a pooler, where the next statement may meet another session.

    Raises:
        psycopg.Error: of the class of the SQLSTATE.
    """
    link = connection.pgconn
    formats = [Format.BINARY] * len(values)
    if not prepare:
        link.send_query_params(statement.text, values, statement.types, formats)
        return await _answer(link)
    names = _prepared.setdefault(connection, set())
    if statement.name not in names:
        link.send_prepare(statement.name, statement.text, statement.types)
        await _answer(link)
        names.add(statement.name)
    link.send_query_prepared(statement.name, values, formats)
    return await _answer(link)


async def _answer(link: PGconn) -> PGresult:
    """Sends what is buffered and reads on until the server is ready for more; the last result, or its error."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    results: list[PGresult] = []
    socket = link.socket

    def advance() -> None:
        try:
            link.consume_input()
            if not link.flush():
                loop.remove_writer(socket)
            while not link.is_busy():
                result = link.get_result()
                if result is None:
                    _tell(done)
                    return
                results.append(result)
        except Exception as error:  # noqa: BLE001 (it goes to the caller)
            _tell(done, error)

    loop.add_reader(socket, advance)
    try:
        if link.flush():  # more than the socket takes at once
            loop.add_writer(socket, advance)
        await done
    except BaseException:
        link.finish()
        raise
    finally:
        loop.remove_reader(socket)
        loop.remove_writer(socket)
    failed = [result for result in results if result.status == ExecStatus.FATAL_ERROR]
    if failed:
        raise error_from_result(failed[0])
    return results[-1]


def _tell(done: asyncio.Future[None], error: Exception | None = None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
