"""Removes received messages from inboxes, in the background: their records hold them from then on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service, is_final
from dbosflow._store import retention

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

logger = logging.getLogger("dbosflow.trimmer")


class InboxTrimmer(Service):
    """Trims inboxes. What it does not come to is left for the next time, or goes with the workflow."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str) -> None:
        super().__init__("trimmer", interval=None)
        self._pool = pool
        self._schema = schema
        self._due: dict[tuple[str, str], int] = {}

    def trim(self, workflow_id: str, key: str, before: int) -> None:
        """Asks for the removal of what is before an offset of a stream. Callable on the loop's thread only."""
        self._due[workflow_id, key] = before
        self.wake()

    async def work_once(self) -> bool:
        """Trims one inbox."""
        if not self._due:
            return False
        stream_of, before = next(iter(self._due.items()))
        try:
            async with self._pool.connection() as connection:
                await retention.trim(connection, self._schema, *stream_of, before)
        except Exception as error:
            if not is_final(error):
                raise
            logger.warning("received messages of workflow %s are not removed: %s", stream_of[0], error)
        if self._due.get(stream_of) == before:
            del self._due[stream_of]
        return bool(self._due)
