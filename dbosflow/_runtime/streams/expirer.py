"""Removes streams that belong to no workflow once their time is over, in the background.

Readers do not depend on it: to them such a stream is gone at that moment. All workers look, each at times of its own;
the removal locks the stream's row, so that it happens once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._store import standalone
from dbosflow.errors import PermissionDeniedError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

logger = logging.getLogger("dbosflow.retention")

EVERY = 60.0
"""Seconds between two looks."""
BATCH = 100
"""Streams that one look removes at most."""


class Expirer(Service):
    """Removes expired streams, each in a transaction of its own."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str) -> None:
        super().__init__("expirer", interval=EVERY)
        self._pool = pool
        self._schema = schema
        self._has_looked = False

    async def work_once(self) -> bool:
        """Removes some streams, if any have expired; not at once, because most engines find none."""
        if not self._has_looked:
            self._has_looked = True
            return False
        async with self._pool.connection() as connection:
            paths = await standalone.expired(connection, self._schema, BATCH)
            try:
                for path in paths:
                    await standalone.delete(connection, self._schema, path, expired=True)
            except PermissionDeniedError as error:
                logger.error("expired streams are not removed: %s", error)  # noqa: TRY400 (says what to do)
                return False
        return len(paths) == BATCH
