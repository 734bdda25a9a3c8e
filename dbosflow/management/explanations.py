"""``engine.workflows.explain``: why a workflow is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._runtime.repository import not_found
from dbosflow._store import explain, outbox
from dbosflow.config import check_identifier
from dbosflow.management.causes import causes_of, in_outbox
from dbosflow.management.explanation import Explanation
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.management.explanation import Cause

_FOLLOWED = 3
"""How many of the workflows that one waits for are explained, too."""
_LONGEST_CHAIN = 20
"""How far a chain of workflows that wait for each other is followed."""
_IN_ALL = 50
"""How many workflows are looked at for one explanation."""


class Explanations:
    """Explains what workflows wait for."""

    _host: Host
    _core: EngineCore

    def explain(self, workflow_id: str) -> Explanation:
        """What a workflow waits for, and what would free it. See ``explain_async``, its awaitable twin."""
        return self._host.call("explain_async", self._explain, check_identifier("workflow id", workflow_id))

    async def explain_async(self, workflow_id: str) -> Explanation:
        """What a workflow waits for, and what would free it: in words, and as data.

        It tells what rows tell, and nothing else: for a queued workflow whether a worker is live that serves its queue
        and knows its function, and how many are before it; for a running one its worker and that one's lease, timers,
        failed attempts and when the next one begins, children that have not ended, and steps that have written to
        streams. What a step's body does is known to nobody but its worker. Where it waits for other workflows, their
        causes come first. It reads a few statements for each of them, all of one moment for each.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._host.bridge(self._explain(check_identifier("workflow id", workflow_id)))

    async def _explain(self, workflow_id: str) -> Explanation:
        ask = self._core.repository.ask
        found = await ask(explain.facts, workflow_id)
        if found is None and (start := await ask(outbox.waiting_start, workflow_id)) is not None:
            any_worker = bool(await ask(explain.workers))
            return Explanation(workflow_id, WorkflowStatus.QUEUED, (in_outbox(start, any_worker=any_worker),))
        if found is None:
            found = await ask(explain.facts, workflow_id)  # it may have been applied between the two
        if found is None:
            raise not_found(workflow_id)
        causes = await self._chained(causes_of(found), _LONGEST_CHAIN, {workflow_id})
        return Explanation(workflow_id, WorkflowStatus(found.subject["status"]), tuple(causes))

    async def _chained(self, causes: list[Cause], depth: int, seen: set[str]) -> list[Cause]:
        """A workflow's causes behind those of the workflows that they name."""
        before: list[Cause] = []
        for workflow_id in [one for cause in causes for one in cause.related][:_FOLLOWED] if depth else ():
            if workflow_id in seen or len(seen) == _IN_ALL:
                continue
            seen.add(workflow_id)
            found = await self._core.repository.ask(explain.facts, workflow_id)
            if found is not None:
                before += await self._chained(causes_of(found), depth - 1, seen)
        return [*before, *causes]
