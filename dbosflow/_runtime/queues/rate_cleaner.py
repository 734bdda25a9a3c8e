"""Removes the rates of partitions that have nothing of them taken any more, in the background.

Claims do not depend on it: such a row says the same as none. So there are as many rows as partitions that have begun
something of late, and not as many as there ever were. All workers look, each at times of its own, page by page; a look
takes one part in a hundred of the time.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._store import queue
from dbosflow.errors import PermissionDeniedError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

logger = logging.getLogger("dbosflow.retention")

EVERY = 60.0
"""Seconds between two looks at all of them."""
_SHARE = 0.01
"""How much of the time one takes."""
_START = ("", "")


class RateCleaner(Service):
    """Removes them."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str) -> None:
        super().__init__("rate cleaner", interval=EVERY)
        self._pool = pool
        self._schema = schema
        self._next = _START
        self._has_looked = False

    async def work_once(self) -> bool:
        """Looks at one page; not at once, because most engines find nothing."""
        if not self._has_looked:
            self._has_looked = True
            return False
        began = time.monotonic()
        async with self._pool.connection() as connection:
            try:
                following = await queue.delete_even(connection, self._schema, self._next)
            except PermissionDeniedError as error:
                logger.error("rates of partitions are not removed: %s", error)  # noqa: TRY400 (says what to do)
                following = None
        self._next = following or _START
        self._interval = EVERY if following is None else min(EVERY, (time.monotonic() - began) / _SHARE)
        return False
