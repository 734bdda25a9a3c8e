"""Connections for users' transactions, in both colours: psycopg's own, but the end of a transaction is the engine's.

Their sessions have the settings of the role, as a program's own connections would, and none of ``dbosflow._sessions``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn, Self

import psycopg
from psycopg.rows import TupleRow, tuple_row

from dbosflow._sessions import ENCODING
from dbosflow._store.attempts import LONGEST_ATTEMPT, SHORTEST_ATTEMPT, target_of
from dbosflow._store.connection import Connection
from dbosflow.codecs.chain import NO_CODECS
from dbosflow.errors import TransactionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._store.attempts import Target
    from dbosflow.codecs.chain import Codecs

_PREPARE_AFTER = 5
"""Runs of a statement before it is prepared: psycopg's own number."""


def _refuse(what: str) -> NoReturn:
    msg = (
        f"{what} in a transaction of dbosflow: the engine commits it when the function returns, together with the "
        "record of the step, and rolls it back when the function raises. For a part that may fail use "
        "`with connection.transaction():`, which is a savepoint"
    )
    raise TransactionError(msg)


def _parameters(target: Target, timeout: float) -> Mapping[str, Any]:
    patience = LONGEST_ATTEMPT if len(target.hosts) == 1 else SHORTEST_ATTEMPT + 1
    limit = max(SHORTEST_ATTEMPT, min(patience, math.ceil(timeout)))
    return {"connect_timeout": limit, **target.settings, "client_encoding": ENCODING}


class UserConnection(Connection):
    """What the async function of a transaction gets."""

    @classmethod
    async def to(cls, url: str, *, timeout: float, pooled: bool) -> Self:  # noqa: ASYNC109 (libpq's)
        """Connects once. Behind a pooler nothing is prepared."""
        target = target_of(url)
        connection = await cls.connect(target.url, autocommit=True, **_parameters(target, timeout))
        target.reached(url, connection)
        as_new(connection, pooled=pooled)
        return connection

    async def commit(self) -> None:
        """Refused: see ``TransactionError``."""
        _refuse("commit() was called")

    async def rollback(self) -> None:
        """Refused: see ``TransactionError``."""
        _refuse("rollback() was called")


class SyncUserConnection(psycopg.Connection[TupleRow]):
    """What the sync function of a transaction gets."""

    codecs: Codecs = NO_CODECS
    """What the payloads in its last statement pass."""

    is_over: BaseException | None = None
    """Raised at the next statement: the transaction's time is over."""
    is_abandoned = False
    """Whether its socket is shut, and its last user, a thread that may still be running, is the one to free it."""

    def __del__(self, *args: Any) -> None:
        if self.is_abandoned:
            self.pgconn.finish()
        super().__del__(*args)

    @classmethod
    def to(cls, url: str, *, timeout: float, pooled: bool) -> Self:
        """Connects once. Behind a pooler nothing is prepared."""
        target = target_of(url)
        connection = cls.connect(target.url, autocommit=True, **_parameters(target, timeout))
        target.reached(url, connection)
        as_new(connection, pooled=pooled)
        return connection

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a psycopg generator, unless the transaction is over."""
        if self.is_over is not None:
            raise self.is_over
        return super().wait(*args, **kwargs)

    def commit(self) -> None:
        """Refused: see ``TransactionError``."""
        _refuse("commit() was called")

    def rollback(self) -> None:
        """Refused: see ``TransactionError``."""
        _refuse("rollback() was called")


AnyUserConnection = UserConnection | SyncUserConnection


def as_new(connection: AnyUserConnection, *, pooled: bool) -> None:
    """Takes back what a function has set on the connection's object."""
    connection.prepare_threshold = None if pooled else _PREPARE_AFTER
    connection.row_factory = tuple_row
    connection._adapters = None  # noqa: SLF001 (psycopg has no other way to take these back)
    connection._notice_handlers.clear()  # noqa: SLF001
    connection._notify_handlers.clear()  # noqa: SLF001
    if isinstance(connection, SyncUserConnection):
        connection.cursor_factory = psycopg.Cursor
        connection.is_over = None
    else:
        connection.cursor_factory = psycopg.AsyncCursor
