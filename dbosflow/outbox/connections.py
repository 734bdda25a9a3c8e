"""One statement on a connection of the user's, whichever library it is of. No library but psycopg is imported.

Of each kind there is a class that says whether the connection has a transaction that can commit, and that runs the
statement in it: on psycopg's connections and cursors, SQLAlchemy's connections and sessions, and Django's connections.
A cursor of the user's is left alone, since it may hold rows that were not fetched yet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from dbosflow._store.statements import literal, numbered
from dbosflow.errors import ConfigurationError, NoTransactionError, PermissionDeniedError, WrongDatabaseError

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = tuple[Any, ...]

_BEGIN = {
    "psycopg": "`with connection.transaction():`, or connect without autocommit=True",
    "sqlalchemy": "`with engine.begin() as connection:`, without the isolation level AUTOCOMMIT",
    "django": "`with transaction.atomic():`",
}
"""How a transaction is begun with each library."""


class OnPsycopg:
    """A connection of psycopg, or that of a cursor."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def fetch(self, text: str, values: Mapping[str, Any]) -> Row | None:
        """Runs the statement; returns its row."""
        _check_psycopg(self._connection)
        with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
            return cursor.execute(literal(text), values, prepare=False).fetchone()


class OnAsyncPsycopg:
    """A connection of psycopg for asyncio, or that of a cursor."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def fetch(self, text: str, values: Mapping[str, Any]) -> Row | None:
        """Runs the statement; returns its row."""
        _check_psycopg(self._connection)
        async with psycopg.AsyncCursor(self._connection, row_factory=tuple_row) as cursor:
            await cursor.execute(literal(text), values, prepare=False)
            return await cursor.fetchone()


def _check_psycopg(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if connection.closed:
        _refuse("is closed")
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        _refuse_failed()
    if status == TransactionStatus.IDLE and connection.autocommit:
        _refuse_autocommit("psycopg")


class OnAlchemy:
    """A ``Connection`` or ``Session`` of SQLAlchemy."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def fetch(self, text: str, values: Mapping[str, Any]) -> Row | None:
        """Runs the statement; returns its row."""
        connection = self._given
        if not hasattr(connection, "exec_driver_sql"):
            _check_session(connection)
            connection = connection.connection()
        _check_alchemy(connection)
        row = connection.exec_driver_sql(*_for_driver(connection.dialect.paramstyle, text, values)).fetchone()
        return None if row is None else tuple(row)


class OnAsyncAlchemy:
    """An ``AsyncConnection`` or ``AsyncSession`` of SQLAlchemy."""

    def __init__(self, given: Any) -> None:
        self._given = given

    async def fetch(self, text: str, values: Mapping[str, Any]) -> Row | None:
        """Runs the statement; returns its row."""
        connection = self._given
        if not hasattr(connection, "exec_driver_sql"):
            _check_session(connection)
            connection = await connection.connection()
        return cast("Row | None", await connection.run_sync(lambda inner: OnAlchemy(inner).fetch(text, values)))


def _check_session(session: Any) -> None:
    if not session.is_active:
        _refuse_failed()


def _check_alchemy(connection: Any) -> None:
    if connection.closed:
        _refuse("is closed")
    if connection.invalidated:
        _refuse_failed()
    transaction = connection.get_transaction()
    if transaction is not None and not transaction.is_active:
        _refuse_failed()
    if connection.dialect.name != "postgresql":
        msg = f"the connection is to {connection.dialect.name}: the engine's database is a Postgres"
        raise WrongDatabaseError(msg)
    driver = connection.connection.dbapi_connection
    if getattr(driver, "autocommit", False) and not _is_in_transaction(driver):
        _refuse_autocommit("sqlalchemy")


def _is_in_transaction(driver: Any) -> bool:
    """Whether a BEGIN was sent on psycopg's connection in autocommit, as in a transaction of dbosflow."""
    info = getattr(driver, "info", None)
    return getattr(info, "transaction_status", TransactionStatus.IDLE) != TransactionStatus.IDLE


def _for_driver(style: str, text: str, values: Mapping[str, Any]) -> tuple[str, Any]:
    """A statement with psycopg's parameters, and its values, as another driver takes them."""
    if style == "pyformat":
        return text, dict(values)
    names = list(dict.fromkeys(_PARAMETER.findall(text)))
    if style == "numeric_dollar":
        return numbered(text, names), tuple(values[name] for name in names)
    if style == "format":
        return _PARAMETER.sub("%s", text), tuple(values[name] for name in _PARAMETER.findall(text))
    msg = f"this SQLAlchemy driver takes parameters as {style!r}: use postgresql+psycopg or postgresql+asyncpg"
    raise ConfigurationError(msg)


_PARAMETER = re.compile(r"%\((\w+)\)s")


class OnDjango:
    """A connection of Django: ``django.db.connection``, or one of ``connections``."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def fetch(self, text: str, values: Mapping[str, Any]) -> Row | None:
        """Runs the statement; returns its row."""
        connection = self._connection
        if connection.vendor != "postgresql":
            msg = f"the connection is to {connection.vendor}: the engine's database is a Postgres"
            raise WrongDatabaseError(msg)
        if not connection.in_atomic_block and connection.get_autocommit():
            _refuse_autocommit("django")
        if connection.needs_rollback:
            _refuse_failed()
        with connection.cursor() as cursor:
            cursor.execute(text, dict(values))
            row = cursor.fetchone()
        return None if row is None else tuple(row)


def connection_of(given: Any) -> OnPsycopg | OnAlchemy | OnDjango:
    """What runs statements on a connection, cursor or session for blocking code.

    Raises:
        ConfigurationError: it is none, or one for asyncio.
    """
    if isinstance(given, psycopg.Connection):
        return OnPsycopg(given)
    if isinstance(given, psycopg.Cursor):
        return OnPsycopg(given.connection)
    if _is_async(given):
        msg = f"{_name(given)} is for asyncio: use start_in_async or send_in_async"
        raise ConfigurationError(msg)
    if _is_alchemy(given):
        return OnAlchemy(given)
    if hasattr(given, "in_atomic_block"):
        return OnDjango(given)
    raise _unknown_kind(given)


def async_connection_of(given: Any) -> OnAsyncPsycopg | OnAsyncAlchemy:
    """What runs statements on a connection, cursor or session for asyncio.

    Raises:
        ConfigurationError: it is none, or a blocking one.
    """
    if isinstance(given, psycopg.AsyncConnection):
        return OnAsyncPsycopg(given)
    if isinstance(given, psycopg.AsyncCursor):
        return OnAsyncPsycopg(given.connection)
    if _is_async(given):
        return OnAsyncAlchemy(given)
    if (
        isinstance(given, psycopg.Connection | psycopg.Cursor)
        or _is_alchemy(given)
        or hasattr(given, "in_atomic_block")
    ):
        msg = f"{_name(given)} is for blocking code, and would hold up the loop: use start_in or send_in in a thread"
        raise ConfigurationError(msg)
    raise _unknown_kind(given)


def _is_alchemy(given: object) -> bool:
    return any(kind.__module__.startswith("sqlalchemy.") for kind in type(given).__mro__) and _can_execute(given)


def _is_async(given: object) -> bool:
    if isinstance(given, psycopg.AsyncConnection | psycopg.AsyncCursor):
        return True
    of_asyncio = any(kind.__module__.startswith("sqlalchemy.ext.asyncio") for kind in type(given).__mro__)
    return of_asyncio and _can_execute(given)


def _can_execute(given: object) -> bool:
    """Whether it is a connection or session, and not an engine or a factory of sessions."""
    return hasattr(given, "execute") and (hasattr(given, "exec_driver_sql") or hasattr(given, "connection"))


def _name(given: object) -> str:
    return f"a {type(given).__module__.partition('.')[0]} {type(given).__qualname__}"


def _unknown_kind(given: object) -> ConfigurationError:
    msg = (
        f"{_name(given)} is no connection that is known here: give a connection or cursor of psycopg, a Connection, "
        "Session, AsyncConnection or AsyncSession of SQLAlchemy, or django.db.connection"
    )
    return ConfigurationError(msg)


def _refuse(why: str) -> NoReturn:
    msg = f"the connection {why}: there is no transaction to take part in"
    raise NoTransactionError(msg)


def _refuse_failed() -> NoReturn:
    msg = "the transaction has failed, and can only be rolled back: do that, and begin another one"
    raise NoTransactionError(msg)


def _refuse_autocommit(library: str) -> NoReturn:
    msg = (
        "the connection is in autocommit, so each statement is a transaction of its own, and nothing else would be in "
        f"it: begin one with {_BEGIN[library]}. Without other rows to write, use engine.start or engine.send"
    )
    raise NoTransactionError(msg)


def explained(error: Exception, schema: str) -> Exception | None:
    """The error for what the database has answered; ``None`` if it speaks for itself."""
    state = _sqlstate(error)
    if state == "25P02":
        return NoTransactionError("the transaction had failed before, and can only be rolled back")
    if state == "25006":
        return NoTransactionError("the transaction is read-only: begin one that may write")
    if state in {"3F000", "42P01", "42703"}:
        return WrongDatabaseError(
            f"the connection's database has no tables of dbosflow in schema {schema!r}: it is another one than the "
            "engine's. The transaction has failed, and can only be rolled back"
        )
    if state == "42501":
        return PermissionDeniedError(
            f"the connection's role may not do this in schema {schema!r}: grant it what "
            "`dbosflow migrate --grants ROLE --as client` prints"
        )
    return None


def _sqlstate(error: Exception) -> str | None:
    for one in (error, getattr(error, "orig", None), error.__cause__):
        state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
        if isinstance(state, str):
            return state
    return None
