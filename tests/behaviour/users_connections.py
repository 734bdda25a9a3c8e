"""Users' transactions, by each kind of connection that they may have, as one kind of object for the tests."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

BLOCKING = ("psycopg connection", "psycopg cursor", "Connection", "Session", "Django")
AWAITABLE = ("psycopg connection", "psycopg cursor", "AsyncConnection", "AsyncSession")


class Django:
    """What ``django.db.connection`` is to the engine: Django itself is not installed here."""

    vendor = "postgresql"
    needs_rollback = False

    def __init__(self, connection: psycopg.Connection[Any], *, in_atomic_block: bool = True) -> None:
        self._connection = connection
        self.in_atomic_block = in_atomic_block
        self.cursor = connection.cursor

    def get_autocommit(self) -> bool:
        """Whether a statement outside of ``atomic`` is a transaction of its own, as it is by default."""
        return True


@contextmanager
def transaction(kind: str, url: str) -> Iterator[tuple[Any, Callable[[str], Any], Callable[[], None]]]:
    """An open transaction: what is handed to the engine, how the user executes SQL in it, and how it is rolled back.

    It is committed at the end of the block.
    """
    if kind in {"Connection", "Session"}:
        engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
        opened: Any = engine.connect() if kind == "Connection" else Session(engine)
        with opened as given:
            yield given, lambda text: given.execute(sqlalchemy.text(text)), given.rollback
            given.commit()
        engine.dispose()
        return
    with psycopg.connect(url) as connection:
        kinds = {"psycopg connection": connection, "psycopg cursor": connection.cursor(), "Django": Django(connection)}
        yield kinds[kind], connection.execute, connection.rollback


@asynccontextmanager
async def transaction_async(kind: str, url: str) -> AsyncIterator[tuple[Any, Any, Any]]:
    """The same for asyncio."""
    if kind in {"AsyncConnection", "AsyncSession"}:

        async def connected() -> Any:
            return await psycopg.AsyncConnection.connect(url)

        engine = create_async_engine("postgresql+psycopg://", async_creator=connected)
        opened: Any = engine.connect() if kind == "AsyncConnection" else AsyncSession(engine)
        async with opened as given:
            yield given, lambda text: given.execute(sqlalchemy.text(text)), given.rollback
            await given.commit()
        await engine.dispose()
        return
    async with await psycopg.AsyncConnection.connect(url) as connection:
        given = connection if kind == "psycopg connection" else connection.cursor()
        yield given, connection.execute, connection.rollback
