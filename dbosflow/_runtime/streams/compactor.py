"""Joins the many small blocks that a live stream leaves into few large ones, once its workflow has ended.

Workflows that end here are processed soon; all others by a slow walk over the table, which never ends. Any executing
engine may do it; the workflow's row, locked for a stretch of one stream at a time, makes sure that only one does.
Readers wait for nothing: their statements see the blocks before or after, with the same values.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._store import retention
from dbosflow._store.queries import is_refused

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.retention import Place

logger = logging.getLogger("dbosflow.compactor")

LEAST = 4
"""A stream in which fewer blocks could join their neighbours is left as it is."""
BLOCK_BYTES = 256 * 1024
"""Bytes of values in a joined block: a quarter of a reader's page, so that pages still fill."""
STRETCH_BLOCKS = 200
"""Blocks that one statement joins, which holds their locks for some milliseconds."""
_REMEMBERED = 10_000
"""Workflows that ended here and wait for their turn; the walk over all workflows finds those beyond this number."""
_WALK = 100
"""Workflows in one step of that walk: a fraction of a second of the database's time."""


class Compactor(Service):
    """Compacts the streams of ended workflows, a few each ``every`` seconds."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str, every: float) -> None:
        super().__init__("compactor", interval=every)
        self._pool = pool
        self._schema = schema
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        self._place: Place = retention.BEGINNING

    def ended(self, workflow_id: str) -> None:
        """Notes that a workflow with many blocks has ended."""
        self._ended.append(workflow_id)

    async def work_once(self) -> bool:
        """Compacts the streams of workflows that ended here, and goes on with the walk."""
        while self._ended:
            await self._try(self._ended[0])
            self._ended.popleft()
        async with self._pool.connection() as connection:
            found = await retention.ended_after(connection, self._schema, self._place, _WALK)
        for place in found:
            await self._try(place[1])
            self._place = place
        if len(found) < _WALK:
            self._place = retention.BEGINNING
        return False

    async def _try(self, workflow_id: str) -> None:
        """Compacts the streams of a workflow, unless the database refuses: then they stay as they are."""
        try:
            await self._compact(workflow_id)
        except Exception as error:
            if not is_refused(error):
                raise
            logger.warning("the streams of workflow %s are not compacted: %s", workflow_id, error)

    async def _compact(self, workflow_id: str) -> None:
        async with self._pool.connection() as connection:
            keys = await retention.scattered(connection, self._schema, workflow_id, LEAST, BLOCK_BYTES)
        for key in keys:
            start: int | None = 0
            while start is not None:
                async with self._pool.connection() as connection:
                    start = await retention.compact(
                        connection,
                        self._schema,
                        workflow_id,
                        key,
                        start,
                        max_blocks=STRETCH_BLOCKS,
                        max_bytes=BLOCK_BYTES,
                    )
