"""Reads the histories of owned workflows: with retries, and so that an unreadable history holds up no other one."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from dbosflow._store import step
from dbosflow._store.queries import is_refused

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.step import History

logger = logging.getLogger("dbosflow.runner")

_RETRY = 0.5
"""Seconds between two tries while the database is away."""


class HistoriesPort(Protocol):
    """What a runner asks for the records that its runs go on from."""

    async def read(self, ids: list[str], /) -> dict[str, History | Exception]:
        """The history of each workflow, or why it can never be read; nothing after ``close``."""

    def close(self) -> None:
        """Ends the retries."""


class Histories:
    """The histories of the workflows that a worker claims."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str) -> None:
        self._pool = pool
        self._schema = schema
        self._closing = False

    def close(self) -> None:
        """Ends the retries."""
        self._closing = True

    async def read(self, ids: list[str]) -> dict[str, History | Exception]:
        """The history of each workflow, or why it can never be read; nothing after ``close``."""
        while ids and not self._closing:
            try:
                async with self._pool.connection() as connection:
                    return {**await step.histories(connection, self._schema, ids)}
            except (psycopg.Error, OSError) as error:
                if is_refused(error):
                    return await self._one_by_one(ids, error)
                logger.warning("the histories of %d workflows could not be read: %s; trying again", len(ids), error)
                await asyncio.sleep(_RETRY)
            except Exception as error:
                if not is_refused(error):
                    raise
                return await self._one_by_one(ids, error)
        return {}

    async def _one_by_one(self, ids: list[str], error: Exception) -> dict[str, History | Exception]:
        if len(ids) == 1:
            return {ids[0]: error}
        found: dict[str, History | Exception] = {}
        for one in ids:
            found |= await self.read([one])
        return found
