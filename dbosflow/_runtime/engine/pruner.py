"""Removes ended workflows that are older than the engine's retention says, a few at a time.

All engines with a retention share one row, which says where the walk over the workflows is, and when its next pass is
due. A pass is a transaction: it locks the row, and what the row says is compared again under the lock; it looks at some
workflows, removes the old ones among them, and writes where the next pass begins. So one process prunes at a time, and
one that dies takes nothing with it. The row keeps its place with one process, which knows what to keep, as long as that
one is on time. Safety does not depend on the row: the removal locks each workflow, and skips those that others hold.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dbosflow._runtime.process.service import Service
from dbosflow._store import retention
from dbosflow.errors import PermissionDeniedError

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.retention import Place
    from dbosflow.config import Retention

logger = logging.getLogger("dbosflow.retention")

STRETCH = 1000
"""Workflows that a pass looks at: some milliseconds of the database's time."""
BATCH = 100
"""Workflows that a pass removes at most: it holds their locks until its commit."""
PAUSE = 0.05
"""Seconds between two passes, at least: a pause is as long as the pass before, so that vacuum and others keep up."""
EVERY = 60.0
"""Seconds between two walks, at least."""
LONGEST = 3600.0
"""Seconds between two walks, at most."""
PATIENCE = 10.0
"""Seconds after which another process goes on with the walk of one that has not come back to it."""
_WITHOUT_RIGHTS = 600.0
"""Seconds until the next try of a role that may not prune; its rights were not granted after a migration."""


class Pruner(Service):
    """Prunes when its turn has come. See the module's docstring."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str, policy: Retention) -> None:
        super().__init__("retention", interval=PATIENCE)
        self._pool = pool
        self._schema = schema
        self._policy = policy
        self._holder = uuid4()
        self._kept_since: dict[str, datetime] = {}

    async def work_once(self) -> bool:
        """Makes a pass, if it is due and no other process makes it."""
        try:
            async with self._pool.connection() as connection:
                due_in = await retention.turn_due_in(connection, self._schema, self._holder, PATIENCE)
                if due_in <= 0:
                    due_in = await self._pass(connection)
        except retention.WritersCommitError:
            due_in = PAUSE
        except PermissionDeniedError as error:
            logger.error("nothing is removed by the retention: %s", error)  # noqa: TRY400 (says what to do)
            due_in = _WITHOUT_RIGHTS
        self._interval = due_in
        return False

    async def _pass(self, connection: AsyncConnection[Any]) -> float:
        """Makes a pass; returns the seconds until the next look."""
        async with connection.transaction():
            turn = await retention.take_turn(connection, self._schema, self._holder, PATIENCE)
            if turn is None:
                return PATIENCE
            if turn.after == retention.BEGINNING or not turn.is_ours:
                self._kept_since = await self._newest(connection)
            after, removed = await self._prune(connection, turn.after)
            due_in, in_total = await retention.leave_turn(
                connection, self._schema, self._holder, after, removed, pause=PAUSE, every=EVERY, longest=LONGEST
            )
        if after is None and in_total:
            logger.info("removed %d workflows that had ended longer ago than the retention", in_total)
        return due_in

    async def _newest(self, connection: AsyncConnection[Any]) -> dict[str, datetime]:
        """Since when the workflows of each kept name stay."""
        return {
            name: retention.BEGINNING[0]
            if count is None
            else await retention.newest_since(connection, self._schema, name, count)
            for name, count in self._policy.kept.items()
        }

    async def _prune(self, connection: AsyncConnection[Any], after: Place) -> tuple[Place | None, int]:
        """Prunes behind a place. Returns where to go on, ``None`` at the end, and the number of removed workflows."""
        which = retention.Pruning(self._policy.finished_age, self._policy.failed_age, self._kept_since)
        until = await retention.pass_end(connection, self._schema, which, after, STRETCH)
        removed = await retention.prune_between(connection, self._schema, which, after, until, batch=BATCH)
        return (removed[-1] if len(removed) == BATCH else until), len(removed)
