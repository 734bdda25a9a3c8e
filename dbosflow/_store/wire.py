"""Hot statements over libpq itself, by ``psycopg.pq``.

At each execution a psycopg cursor looks up the type of each parameter, the name of the prepared statement, and a loader
for each result. For a batch of one record this takes about as long as Postgres takes for the statement. Here all of
that is known in advance.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from psycopg import Error, OperationalError, generators
from psycopg.errors import (
    DuplicatePreparedStatement,
    FeatureNotSupported,
    InvalidSqlStatementName,
    ReadOnlySqlTransaction,
    error_from_result,
)
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.waiting import Ready, Wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

_prepared: WeakKeyDictionary[AsyncConnection[Any], set[bytes]] = WeakKeyDictionary()
"""The names of the prepared statements on each connection."""


_LONGEST_NAME = 63
"""Bytes. The server compares no more of a statement's name (NAMEDATALEN): two that differ behind them are one to it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with parameters ``$1`` and so on, and the ids of their types."""

    name: bytes
    """What a session knows it by, once prepared. The end of a long one becomes a digest."""
    text: bytes
    types: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.name) > _LONGEST_NAME:
            digest = blake2b(self.name, digest_size=8).hexdigest().encode()
            object.__setattr__(self, "name", self.name[: _LONGEST_NAME - len(digest) - 1] + b"_" + digest)


Sent: TypeAlias = "tuple[Statement, Sequence[bytes | None]]"
"""A statement, with the values of its parameters in binary format."""


async def execute(
    connection: AsyncConnection[Any], statement: Statement, values: Sequence[bytes | None], *, prepare: bool
) -> PGresult:
    """Executes a statement, and returns its result with the values in text format.

    The caller has the connection for itself, in autocommit mode.

    Args:
        connection: a psycopg connection.
        statement: the statement. With ``prepare`` it is prepared the first time on this connection.
        values: the parameters' values, in binary format.
        prepare: whether to prepare it. Not behind a pooler, where the next statement may meet another session.

    Raises:
        psycopg.Error: the server's error, in the class of its SQLSTATE.
    """
    if not prepare:
        link, formats = connection.pgconn, [Format.BINARY] * len(values)
        link.send_query_params(statement.text, values, statement.types, formats)
        return await answer(connection)
    if send(connection, statement, values):
        try:
            return await answer(connection)
        except InvalidSqlStatementName:
            # Nothing was executed. psycopg has deallocated all statements of the session, as after each rollback.
            _prepared.pop(connection, None)
    await _prepare(connection, statement)
    send(connection, statement, values)
    return await answer(connection)


async def _prepare(connection: AsyncConnection[Any], statement: Statement) -> None:
    """Prepares a statement, if it is not prepared yet."""
    known = _prepared.setdefault(connection, set())
    if statement.name not in known:
        connection.pgconn.send_prepare(statement.name, statement.text, statement.types)
        with suppress(DuplicatePreparedStatement):  # whoever prepared it was cancelled before the answer
            await answer(connection)
        known.add(statement.name)


async def execute_together(connection: AsyncConnection[Any], sent: Sequence[Sent], *, prepare: bool) -> list[PGresult]:
    """Executes statements in one transaction and one round trip; returns the result of each.

    Each has a snapshot of its own, and sees what those before it have locked and written. If one fails, nothing of them
    is written. The arguments and errors are those of ``execute``.
    """
    return (await _in_one_round_trip(connection, [sent], prepare=prepare))[0]


async def execute_and_follow(connection: AsyncConnection[Any], first: Sent, follower: Sent) -> tuple[PGresult, bool]:
    """Executes a statement, and behind it another one in a transaction of its own, in one round trip.

    Both are prepared. Returns the result of the first, and whether the other has succeeded too. Raises what the first
    one raises; the other one may have been executed all the same.
    """
    (result,), followed = await _in_one_round_trip(connection, [[first], [follower]], prepare=True)
    return result, all(one.status != ExecStatus.FATAL_ERROR for one in followed)


async def _in_one_round_trip(
    connection: AsyncConnection[Any], transactions: Sequence[Sequence[Sent]], *, prepare: bool
) -> list[list[PGresult]]:
    """The results of each transaction. Raises if the first one fails."""
    for is_last in (False, True):
        if prepare:
            for statement, _ in chain.from_iterable(transactions):
                await _prepare(connection, statement)
        results = await connection.wait(_pipelined(connection.pgconn, transactions, prepare=prepare))
        failed = next((one for one in results[0] if one.status == ExecStatus.FATAL_ERROR), None)
        if failed is None:
            return results
        error = error_from_result(failed)
        if is_last or not isinstance(error, InvalidSqlStatementName):
            raise await left(connection, error)
        _prepared.pop(connection, None)
    raise AssertionError


def _pipelined(pgconn: PGconn, transactions: Sequence[Sequence[Sent]], *, prepare: bool) -> PQGen[list[list[PGresult]]]:
    pgconn.enter_pipeline_mode()
    for sent in transactions:
        for statement, values in sent:
            formats = [Format.BINARY] * len(values)
            if prepare:
                pgconn.send_query_prepared(statement.name, values, formats)
            else:
                pgconn.send_query_params(statement.text, values, statement.types, formats)
        sync(pgconn)
    results: list[list[PGresult]] = []
    for _ in transactions:
        results += [(yield from until_sync(pgconn))]
    pgconn.exit_pipeline_mode()
    return results


def sync(pgconn: PGconn) -> None:
    """Ends a transaction of the pipeline.

    It sends, too, so it may find that the connection is lost; psycopg says of any error here that the mode is wrong.
    """
    try:
        pgconn.pipeline_sync()
    except OperationalError as error:
        if pgconn.status != ConnStatus.BAD:
            raise
        msg = f"the connection was lost: {pgconn.get_error_message()}"
        raise OperationalError(msg) from error


def until_sync(pgconn: PGconn) -> PQGen[list[PGresult]]:
    """Sends what is in the pipeline, and returns all results up to its end."""
    while pgconn.flush():
        ready = yield Wait.RW
        if ready & Ready.R:
            pgconn.consume_input()
    results: list[PGresult] = []
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == ConnStatus.BAD:
                if (failed := next((one for one in results if one.status == ExecStatus.FATAL_ERROR), None)) is not None:
                    raise error_from_result(failed)
                msg = "the connection was lost before the answer to COMMIT"
                raise OperationalError(msg)
        elif result.status == ExecStatus.PIPELINE_SYNC:
            return results
        else:
            results.append(result)


def send(connection: AsyncConnection[Any], statement: Statement, values: Sequence[bytes | None]) -> bool:
    """Puts a statement on the wire before it returns. Then ``answer`` has to be awaited.

    Returns ``False``, and sends nothing, if the statement is not prepared yet.
    """
    if statement.name not in _prepared.get(connection, ()):
        return False
    connection.pgconn.send_query_prepared(statement.name, values, [Format.BINARY] * len(values))
    return True


async def answer(connection: AsyncConnection[Any]) -> PGresult:
    """Sends the rest of the output, and waits until the server is ready again. Returns the one result, or raises."""
    results: list[PGresult] = await connection.wait(generators.execute(connection.pgconn))
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            error = error_from_result(result)
            if not isinstance(error, _NAMES):  # those are for who has sent a name
                error = await left(connection, error)
            raise error
    return results[-1]


_NAMES = (InvalidSqlStatementName, DuplicatePreparedStatement)
"""The session has not prepared what its user believes, or has: somebody else has used it."""


def is_stale(error: BaseException | None) -> bool:
    """Whether a prepared statement would have to return other types: a table was altered meanwhile."""
    return isinstance(error, FeatureNotSupported) and error.diag.source_function == "RevalidateCachedQuery"


async def left(connection: AsyncConnection[Any], error: Error) -> Error:
    """Closes a connection whose session would fail in the same way for ever. Returns the error to raise.

    For prepared statements this is the same as if the server had ended the session, since nothing was executed.
    """
    if isinstance(error, ReadOnlySqlTransaction):
        # A primary that became a standby may keep its sessions. A new connection finds the new primary.
        await connection.close()
    elif is_stale(error) or isinstance(error, _NAMES):
        await connection.close()
        lost = OperationalError(f"left a session with useless statements: {error}")
        lost.__cause__ = error
        return lost
    return error
