"""Requests about several workflows at a time: one statement, or one short transaction, for a batch of ids."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import psycopg

from dbosflow._store import workflow
from dbosflow._store.notify import CANCEL_TOPIC, queue_topic, workflow_topic
from dbosflow.types import WorkflowChange, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from dbosflow._runtime.repository import Repository
    from dbosflow._store.queries import Rows

_MOST_LOST_PLACES = 1000
"""How often the end of an input may lose its offset to writers: then something else is wrong."""


class Acts:
    """Changes the given workflows, notifies whoever waits, and says of each id what came of it."""

    def __init__(
        self,
        repository: Repository,
        announce: Callable[[Iterable[str]], None],
        bring: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._repository = repository
        self._bring = bring
        """Applies the start of a workflow that is in the outbox; whether there is such a workflow now."""
        self._announce = announce

    async def cancel(
        self, ids: Sequence[str], *, children: bool, reason: str | None, statuses: Sequence[str] | None = None
    ) -> list[WorkflowChange]:
        """Requests the cancellation of workflows: with ``statuses``, of those that have one of them."""
        ask = partial(workflow.cancel_many, children=children, reason=reason, statuses=statuses)
        rows = await self._request(self._repository, ask, ids)
        asked = {row["id"]: WorkflowStatus(row["status"]) for row in rows}
        others = [one for one in ids if one not in asked]
        found = await self._repository.ask(workflow.outcomes, others) if others else {}
        brought = [one for one in others if one not in found and await self._bring(one)]
        if brought:
            asked |= {
                row["id"]: WorkflowStatus(row["status"]) for row in await self._request(self._repository, ask, brought)
            }
        return [_cancelled(one, asked.get(one), found[one].status if one in found else None) for one in ids]

    async def cancel_children(self, repository: Repository, workflow_id: str, reason: str | None) -> None:
        """Requests the cancellation of a workflow's children."""
        await self._request(repository, workflow.cancel_children, workflow_id, reason)

    async def _request(self, repository: Repository, statement: Callable[..., Awaitable[Rows]], *which: object) -> Rows:
        rows = await self._repeated(repository, statement, *which)
        if rows:
            waking = [topic for row in rows for topic in (workflow_topic(row["id"]), queue_topic(row["queue"]))]
            self._announce(dict.fromkeys([CANCEL_TOPIC, *waking]))
        return rows

    async def _repeated(
        self, repository: Repository, statement: Callable[..., Awaitable[Rows]], *which: object
    ) -> Rows:
        for attempt in count(1):
            try:
                return await repository.ask(statement, *which)
            except psycopg.errors.UniqueViolation:
                # An input of a workflow that never ran was written meanwhile: again, with what is there.
                if attempt == _MOST_LOST_PLACES:
                    raise
                await asyncio.sleep(0)
        raise AssertionError

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


def _cancelled(one: str, asked: WorkflowStatus | None, found: WorkflowStatus | None) -> WorkflowChange:
    """What came of a request to cancel: ``asked`` is the status after it, ``found`` that of one that it left alone."""
    if asked is not None:
        return WorkflowChange(one, "cancelled" if asked.ended else "requested", asked)
    if found is None:
        return WorkflowChange(one, "unknown", None)
    return WorkflowChange(one, "ended" if found.ended else "unchanged", found)
