"""``engine.workflows.set_priority``: another place in their queues for workflows that wait."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dbosflow._store import priority
from dbosflow._store.notify import queue_topic
from dbosflow.config import LARGEST_INTEGER, check_whole
from dbosflow.management.bulk import Bulk
from dbosflow.types import WorkflowChange, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow._store.queries import Rows
    from dbosflow.management.bulk import Selection

    Progress = Callable[[int], object]

_WAITING = [WorkflowStatus.QUEUED, WorkflowStatus.SCHEDULED]


class Priorities:
    """Changes priorities."""

    _host: Host
    _core: EngineCore

    def set_priority(
        self, which: Selection, priority: int, *, progress: Progress | None = None
    ) -> list[WorkflowChange]:
        """Sets the priority of workflows that wait in a queue. See ``set_priority_async``, its awaitable twin."""
        return self._host.call("set_priority_async", self._set, which, _checked(priority), progress)

    async def set_priority_async(
        self, which: Selection, priority: int, *, progress: Progress | None = None
    ) -> list[WorkflowChange]:
        """Sets the priority of workflows that wait in a queue, and returns what came of it for each.

        Those that are queued or scheduled get it: the outcome is ``"changed"``, also where it was the same before. One
        that a worker has just taken, or that has any other status, stays ``"unchanged"``: its priority plays no role.

        Args:
            which: the id of a workflow, several ids, or a filter. Of a filter, only waiting workflows are selected.
            priority: the order within the queue. Lower numbers run first.
            progress: is called after each batch with the number of workflows that were handled so far.

        Raises:
            ConfigurationError: an argument is not valid, or ``which`` is a filter without criteria.
        """
        return await self._host.bridge(self._set(which, _checked(priority), progress))

    async def _set(self, which: Selection, number: int, progress: Progress | None) -> list[WorkflowChange]:
        bulk = Bulk(self._core.repository, which, _WAITING, partial(self._set_these, number))
        while not bulk.is_over:
            await bulk.work_once()
            if progress is not None:
                progress(bulk.handled)
        return bulk.changes

    async def _set_these(self, number: int, ids: Sequence[str]) -> list[WorkflowChange]:
        rows = {row["id"]: row for row in await self._ask(ids, number)}
        brought = [one for one in ids if one not in rows and await self._core.transactions.bring(one)]
        if brought:
            rows |= {row["id"]: row for row in await self._ask(brought, number)}
        waiting = [row for row in rows.values() if row["queue"] is not None]
        self._core.announce({queue_topic(row["queue"]) for row in waiting if row["status"] == "queued"})
        return [
            WorkflowChange(
                one, "changed" if rows[one]["queue"] is not None else "unchanged", WorkflowStatus(rows[one]["status"])
            )
            if one in rows
            else WorkflowChange(one, "unknown", None)
            for one in ids
        ]

    async def _ask(self, ids: Sequence[str], number: int) -> Rows:
        return await self._core.repository.ask(priority.set_priority, ids, number)


def _checked(number: int) -> int:
    return check_whole("priority", number, -LARGEST_INTEGER, LARGEST_INTEGER)
