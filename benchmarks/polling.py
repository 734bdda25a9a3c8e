"""Waiting for the database to say that all is done, in the same way for every system."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from typing import Any

_PATIENCE = 200.0


async def until_done(url: str, count: str, expected: int) -> None:
    """Returns when the query ``count`` finds as many as expected; asked a hundred times a second."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await until_found(connection, count, expected, pause=0.01)


async def until_found(connection: psycopg.AsyncConnection[Any], count: str, expected: int, *, pause: float) -> None:
    """The same over a connection that is there, with a pause of so many seconds."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        row = await (await connection.execute(count.encode(), prepare=True)).fetchone()
        if row and row[0] >= expected:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{row} of {expected} after {_PATIENCE:g} s")
        await asyncio.sleep(pause)
