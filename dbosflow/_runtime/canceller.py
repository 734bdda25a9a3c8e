"""Hears that a run of this lane is to be cancelled, and has the runner carry it out.

A cancel is a request in the workflow's row, since only the owner's fence may write for a run. Requests are rare, so one
topic serves all; the safety poll covers a lost hint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._runtime.service import Service
from dbosflow._store import workflow
from dbosflow._store.notify import CANCEL_TOPIC

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.lane import Lane
    from dbosflow._runtime.runner import Runner
    from dbosflow._runtime.signals import Signals


class Canceller(Service):
    """Looks for cancel requests among the runs of one lane."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], schema: str, *, lane: Lane, runner: Runner, signals: Signals
    ) -> None:
        super().__init__("canceller", interval=None)
        self._pool = pool
        self._schema = schema
        self._lane = lane
        self._runner = runner
        self._unsubscribe = signals.subscribe(CANCEL_TOPIC, self.wake)

    async def close(self) -> None:
        """Hears no more."""
        self._unsubscribe()
        await super().close()

    async def work_once(self) -> bool:
        """Passes on the requests that stand."""
        if self._runner.known():
            async with self._pool.connection() as connection:
                requested = await workflow.cancel_requests(connection, self._schema, self._lane.id)
            for workflow_id in requested:
                self._runner.cancel(workflow_id)
        return False
