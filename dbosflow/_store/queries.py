"""Runs named statements: the common code of the table modules.

Most statements go through a psycopg cursor. Hot ones go directly over the wire: in the statement each parameter names
its type, ``:name::text[]``, and so does each column of the result.
"""

from __future__ import annotations

import re
import struct
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.rows import DictRow, dict_row, namedtuple_row

from dbosflow._sessions import IN_ORDER
from dbosflow._store import payloads, statements
from dbosflow._store.arrays import TYPES, Texts
from dbosflow._store.wire import Statement, execute, execute_and_follow, execute_together, left
from dbosflow.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from psycopg import AsyncConnection, AsyncCursor
    from psycopg.pq.abc import PGresult

    from dbosflow._store.arrays import ArrayType, ScalarType
    from dbosflow._store.wire import Sent
    from dbosflow.codecs.chain import Codecs

Rows = list[DictRow]


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


async def fetch_all(connection: AsyncConnection[Any], schema: str, table: str, name: str, /, **values: Any) -> Rows:
    """The rows of statement ``name`` of ``sql/<table>.sql``."""
    return await _fetch(connection, schema, (table, name), values, dict_row)


async def fetch_named(
    connection: AsyncConnection[Any], schema: str, table: str, name: str, /, **values: Any
) -> list[Any]:
    """``fetch_all`` for many rows: as named tuples, which take a third of the time."""
    return await _fetch(connection, schema, (table, name), values, namedtuple_row)


async def _fetch(
    connection: AsyncConnection[Any], schema: str, where: tuple[str, str], values: dict[str, Any], shape: Any
) -> list[Any]:
    table, name = where
    return await _fetch_text(connection, schema, statements.load(table, schema)[name], values, shape)


async def fetch_text(connection: AsyncConnection[Any], schema: str, text: str, values: Mapping[str, Any]) -> Rows:
    """The rows of a statement that was put together from parts of a file in ``sql``."""
    return await _fetch_text(connection, schema, text, values, dict_row)


async def _fetch_text(
    connection: AsyncConnection[Any], schema: str, text: str, values: Mapping[str, Any], shape: Any
) -> list[Any]:
    bound = {key: Texts(value) if _is_texts(value) else value for key, value in values.items()}
    with rights_named(schema):
        async with connection.cursor(row_factory=shape) as cursor:
            try:
                await cursor.execute(statements.literal(text), bound)
            except psycopg.Error as error:
                raise await left(connection, error) from error.__cause__
            return _readable(connection, cursor, await cursor.fetchall()) if cursor.description else []


def _readable(connection: AsyncConnection[Any], cursor: AsyncCursor[Any], rows: list[Any]) -> list[Any]:
    """The rows with their payloads as they were before they were stored."""
    names = payloads.COLUMNS.intersection([column.name for column in cursor.description or ()])
    if not names:
        return rows
    codecs = payloads.codecs_of(connection)
    return [_unsealed(codecs, row, names) for row in rows]


def _unsealed(codecs: Codecs, row: Any, names: Iterable[str]) -> Any:
    """A row, which is only made anew if it holds an envelope."""
    is_dict = isinstance(row, dict)
    for name in names:
        text = row[name] if is_dict else getattr(row, name)
        if isinstance(text, str) and (found := payloads.unsealed(codecs, text)) is not text:
            row = {**row, name: found} if is_dict else row._replace(**{name: found})
    return row


async def flush_seen(connection: AsyncConnection[Any], schema: str, workflow_ids: Iterable[str]) -> None:
    """Returns when what this session has seen of these workflows is durable: for an answer that is found, not written.

    An earlier statement has written it, maybe one whose session was ended while it waited for a standby.
    """
    if ids := list(workflow_ids):
        await fetch_all(connection, schema, "workflow", "flush_seen", ids=ids)


async def ask(connection: AsyncConnection[Any], schema: str, text: str, values: Mapping[str, Any]) -> Rows:
    """The rows of a statement that is not prepared: a plan that was made for an empty table would scan it later."""
    with rights_named(schema):
        async with connection.cursor(row_factory=dict_row) as cursor:
            try:
                await cursor.execute(statements.literal(text), values, prepare=False)
            except psycopg.Error as error:
                raise await left(connection, error) from error.__cause__
            return _readable(connection, cursor, await cursor.fetchall())


async def fetch_hot(
    connection: AsyncConnection[Any],
    schema: str,
    table: str,
    name: str,
    /,
    *,
    sections: tuple[str, ...] = (),
    **values: Any,
) -> list[list[Any]]:
    """The rows of a hot statement, with the columns in order. The caller has the connection for itself."""
    statement, parameters = _bound(schema, table, name, sections, values)
    with rights_named(schema):
        result = await execute(connection, statement, parameters, prepare=connection.prepare_threshold is not None)
    return _loaded(connection, result)


async def fetch_hot_and_follow(
    connection: AsyncConnection[Any],
    schema: str,
    table: str,
    name: str,
    follower: Sent,
    /,
    *,
    sections: tuple[str, ...],
    **values: Any,
) -> tuple[list[list[Any]], bool]:
    """``fetch_hot`` with a statement behind it, as by ``execute_and_follow``; also whether that one has succeeded."""
    sent = _bound(schema, table, name, sections, values)
    with rights_named(schema):
        result, followed = await execute_and_follow(connection, sent, follower)
    return _loaded(connection, result), followed


async def fetch_hot_together(
    connection: AsyncConnection[Any], schema: str, table: str, names: Sequence[str], /, **values: Any
) -> list[list[list[Any]]]:
    """The rows of several hot statements, which share one transaction, one round trip, and their values."""
    sent = [_bound(schema, table, name, (), values) for name in names]
    with rights_named(schema):
        results = await execute_together(connection, sent, prepare=connection.prepare_threshold is not None)
    return [_loaded(connection, result) for result in results]


def _bound(
    schema: str, table: str, name: str, sections: tuple[str, ...], values: Mapping[str, Any]
) -> tuple[Statement, list[bytes | None]]:
    statement, types = _hot(table, name, sections, statements.load(table, schema, *sections)[name])
    return statement, [types[key].dump(values[key]) for key in types]


def _loaded(connection: AsyncConnection[Any], result: PGresult) -> list[list[Any]]:
    columns = [(column, _LOADERS[result.ftype(column)]) for column in range(result.nfields)]
    sealed = [column for column, _ in columns if result.fname(column) in _PAYLOADS]
    if sealed:
        codecs = payloads.codecs_of(connection)

        def load_payload(value: bytes) -> str | None:
            return payloads.unsealed(codecs, value.decode())

        columns = [(column, load_payload if column in sealed else load) for column, load in columns]
    get = result.get_value
    return [
        [None if (value := get(row, column)) is None else load(value) for column, load in columns]
        for row in range(result.ntuples)
    ]


_LOADERS: dict[int, Callable[[bytes], Any]] = {
    16: b"t".__eq__,
    20: int,
    23: int,
    25: bytes.decode,
    701: float,
}
"""How to load columns in text format, by the type's id in Postgres's catalog."""

_PAYLOADS = frozenset(name.encode() for name in payloads.COLUMNS)


_TYPED = re.compile(r"%\((?P<name>[a-z_]\w*)\)s::(?P<type>[a-z ]+(?:\[\])?)")


@cache
def _hot(
    table: str, name: str, sections: tuple[str, ...], text: str
) -> tuple[Statement, dict[str, ArrayType | ScalarType]]:
    types = {cast["name"]: TYPES[cast["type"].strip()] for cast in _TYPED.finditer(text)}
    sent = statements.numbered(text, [*types])
    return Statement(
        "_".join(("dbosflow", table, name, *sections)).encode(), sent.encode(), tuple(one.oid for one in types.values())
    ), types


@contextmanager
def rights_named(schema: str) -> Iterator[None]:
    """Turns a lack of privileges into an error that says what to do."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        message = (
            f"this database role may not do this in schema {schema!r}: {error.diag.message_primary}. Connect as "
            "another role, or grant this one what `dbosflow migrate --grants` prints for a worker, client or reader"
        )
        raise PermissionDeniedError(message) from error


_REFUSED_CLASSES = ("22", "23", "54")
"""The SQLSTATE classes of errors about the data itself. Sending the data again would not help."""


_OF_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""The errors of code that binds parameters or reads a result."""


def is_refused(error: BaseException) -> bool:
    """Whether the database or the driver refuses a statement for its data. Otherwise it may be sent again."""
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:  # an error of the driver, which could not bind a value
            return isinstance(error, psycopg.DataError | psycopg.ProgrammingError | psycopg.NotSupportedError)
        return error.sqlstate[:2] in _REFUSED_CLASSES
    return isinstance(error, _OF_VALUES)


@asynccontextmanager
async def in_order(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """A transaction whose statements read an index in its order, also where the planner knows nothing of the table."""
    async with connection.transaction():
        settings = "; ".join(f"SET LOCAL {name} = {value}" for name, value in IN_ORDER.items())
        await connection.execute(statements.literal(settings))
        yield
