"""Removes the records of earlier iterations, in the background: no replay asks for them any more.

Each removal is about all earlier iterations of a workflow, whoever ran them, so a lost one is made up for by the next
one. It comes once there is enough to remove. What readers of streams still ask for stays: the records of steps whose
values are in a stream. All that is left goes with the workflow.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service, is_final
from dbosflow._store import iteration

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

logger = logging.getLogger("dbosflow.retention")

WORTH_IT = 256
"""Records of earlier iterations from which on they are removed."""
MOST = 1000
"""Records that one statement removes."""


class IterationCleaner(Service):
    """Removes what the workflows of one engine have left behind."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str) -> None:
        super().__init__("iterations", interval=None)
        self._pool = pool
        self._schema = schema
        self._removed_before: dict[str, int] = {}
        """Up to which ``seq`` the records of each workflow were removed."""
        self._due: dict[str, int] = {}

    def continued(self, workflow_id: str, seq: int) -> None:
        """A workflow was continued as new: the record of that is the one before ``seq``. On the loop's thread only."""
        if seq - self._removed_before.setdefault(workflow_id, 0) > WORTH_IT:
            self._due[workflow_id] = seq
            self.wake()

    def over(self, workflow_id: str) -> None:
        """A workflow has ended, or goes on elsewhere."""
        self._removed_before.pop(workflow_id, None)

    async def work_once(self) -> bool:
        """Removes a part of what one workflow has left behind."""
        if not self._due:
            return False
        workflow_id, seq = next(iter(self._due.items()))
        removed = 0
        try:
            async with self._pool.connection() as connection:
                removed = await iteration.remove_earlier(connection, self._schema, workflow_id, MOST)
        except Exception as error:
            if not is_final(error):
                raise
            logger.warning("records of earlier iterations of workflow %s are not removed: %s", workflow_id, error)
        if removed < MOST and self._due.get(workflow_id) == seq:
            del self._due[workflow_id]
            if workflow_id in self._removed_before:
                self._removed_before[workflow_id] = seq
        return bool(self._due)
