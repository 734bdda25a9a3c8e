"""Requests about several workflows at a time: one statement, or one short transaction, for a batch of ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dbosflow._store import workflow
from dbosflow._store.notify import queue_topic, workflow_topic
from dbosflow.types import WorkflowChange, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dbosflow._runtime.repository import Repository


class Acts:
    """Changes the given workflows, notifies whoever waits, and says of each id what came of it."""

    def __init__(self, repository: Repository, announce: Callable[[Iterable[str]], None]) -> None:
        self._repository = repository
        self._announce = announce

    async def resume(self, ids: Sequence[str]) -> list[WorkflowChange]:
        """Returns blocked workflows to their queues."""
        rows = {row["id"]: row for row in await self._repository.ask(workflow.resume, ids)}
        resumed = [row for row in rows.values() if row["queue"] is not None]
        if resumed:
            waiting = {queue_topic(row["queue"]) for row in resumed}
            self._announce([*(workflow_topic(row["id"]) for row in resumed), *waiting])
        return [
            WorkflowChange(
                one,
                "resumed" if rows[one]["queue"] is not None else "unchanged",
                WorkflowStatus(rows[one]["status"]),
            )
            if one in rows
            else WorkflowChange(one, "unknown", None)
            for one in ids
        ]

    async def delete(self, ids: Sequence[str], *, children: bool) -> list[WorkflowChange]:
        """Removes ended workflows: the given ones in their order, and after them what else went with ``children``."""
        rows = await self._repository.delete(ids, children=children)
        found = {
            one: WorkflowChange(one, cast("Any", outcome), WorkflowStatus(status))
            for one, (outcome, status) in rows.items()
        }
        asked = [found.pop(one, WorkflowChange(one, "unknown", None)) for one in ids]
        return [*asked, *found.values()]
