"""Removes received messages from inboxes, in the background: their records hold them from then on.

What a snapshot somewhere in the database still keeps (see retention.sql's `trim`) is tried again: its receiver may have
received all, and a sender whom a full inbox refuses sends nothing that would let the receiver ask again.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._runtime.process.service import Service, is_final
from dbosflow._runtime.streams.message_writer import BLOCK_VALUES
from dbosflow._store import retention

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg_pool import AsyncConnectionPool

logger = logging.getLogger("dbosflow.trimmer")

AGAIN = 10.0
"""Seconds until the next try for what was kept."""


class _Request(NamedTuple):
    """What is to be removed of an inbox."""

    before: int
    removed: Callable[[int], None]
    """Called with the offset when that is done."""


class InboxTrimmer(Service):
    """Trims inboxes. What it does not come to is asked for again by the workflow's next owner, or goes with it."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str) -> None:
        super().__init__("trimmer", interval=None)
        self._pool = pool
        self._schema = schema
        self._due: dict[tuple[str, str], _Request] = {}
        self._kept: dict[tuple[str, str], _Request] = {}
        self._again_at = 0.0

    def trim(self, workflow_id: str, key: str, before: int, removed: Callable[[int], None]) -> None:
        """Asks for the removal of what is before an offset of a stream. Callable on the loop's thread only."""
        self._due[workflow_id, key] = _Request(before, removed)
        self.wake()

    async def work_once(self) -> bool:
        """Trims one inbox."""
        if self._kept and time.monotonic() >= self._again_at:
            self._due, self._kept = self._kept | self._due, {}
        if not self._due:
            return False
        stream_of, request = next(iter(self._due.items()))
        before = request.before
        try:
            async with self._pool.connection() as connection:
                first = await retention.trim(connection, self._schema, *stream_of, before)
        except Exception as error:
            if not is_final(error):
                raise
            logger.warning("received messages of workflow %s are not removed: %s", stream_of[0], error)
        else:
            if first is None or before - first <= BLOCK_VALUES:  # a block that is newest, or received in part
                request.removed(before)
            else:
                self._keep(stream_of, request)
        if self._due.get(stream_of) is request:
            del self._due[stream_of]
        self._interval = AGAIN if self._kept else None
        return bool(self._due)

    def _keep(self, stream_of: tuple[str, str], request: _Request) -> None:
        if not self._kept:
            self._again_at = time.monotonic() + AGAIN
        self._kept[stream_of] = request
