"""Ends cancelled runs whose bodies do not: a body takes too long, or has ended the run before the request."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.execution.delivery import deliver
from dbosflow._runtime.runs.end_request import ending_of
from dbosflow._runtime.runs.state import RunStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dbosflow._runtime.execution.bodies import Bodies
    from dbosflow._runtime.execution.journal_port import JournalPort
    from dbosflow._runtime.execution.run import Run
    from dbosflow._store.cancel_request import CancelRequest

logger = logging.getLogger("dbosflow.runner")


class CancelledRuns:
    """The cancelled runs of one runner, whose bodies get ``grace`` seconds to clean up."""

    def __init__(
        self,
        grace: float,
        *,
        bodies: Bodies,
        journal: JournalPort,
        is_here: Callable[[Run], bool],
        begin_task: Callable[[Coroutine[Any, Any, None], str], None],
    ) -> None:
        self._grace = grace
        self._bodies = bodies
        self._journal = journal
        self._is_here = is_here
        """Whether a run is its workflow's current run in this process."""
        self._begin_task = begin_task
        self._loop = asyncio.get_running_loop()

    def cancel(self, run: Run, request: CancelRequest) -> None:
        """Carries out a request to end the workflow of ``run``, which is notified now."""
        if run.compensations is not None and not run.cancelled:
            run.note_request(request)
            self.deliver(run)
        elif run.cancel(request):
            logger.info("workflow %s is asked to end", run.workflow_id)
            self._loop.call_later(self._grace, self._cut_short, run)

    def begin(self, run: Run, request: CancelRequest) -> None:
        """Notes a request for a run that is about to begin. Only a body that has something to undo is called again."""
        run.note_request(request)
        if run.compensations is None or run.epoch == 1:
            run.begin_cancelled()

    def deliver(self, run: Run) -> None:
        """Delivers the request to a body that compensates: by a record. The body is waited for, however long."""
        if run.request is not None and not (run.ending or run.compensating or run.stopping is not None):
            logger.info("workflow %s is asked to end", run.workflow_id)
            deliver(run, partial(run.cancel, run.request))

    def _cut_short(self, run: Run) -> None:
        """Ends a cancelled run whose body does not end."""
        if self._can_be_cut_short(run):
            logger.warning("workflow %s is cancelled; its body has not ended within the grace", run.workflow_id)
            self._begin_task(self._end_without_body(run), f"dbosflow-cut-{run.workflow_id}")

    def _can_be_cut_short(self, run: Run) -> bool:
        return self._is_here(run) and run.may_branch

    async def _end_without_body(self, run: Run) -> None:
        try:
            await self._bodies.cancel_children(run)
        except RunStopped:
            return
        if self._can_be_cut_short(run):
            run.stop("it was cancelled, and did not end within the grace")
            self._journal.finish(run, ending_of(run.workflow_id, run.request))

    def overtaken(self, run: Run) -> None:
        """A cancel came before the end of ``run``, which now ends as cancelled."""
        if not self._is_here(run) or run.superseded:
            return
        if run.compensations is not None and run.stopping is None:
            self._bodies.undo(run)
        else:
            logger.info("workflow %s is cancelled: that was asked for before its end was durable", run.workflow_id)
            self._begin_task(self._end_overtaken(run), f"dbosflow-overtaken-{run.workflow_id}")

    async def _end_overtaken(self, run: Run) -> None:
        run.begin_cancelled()
        try:
            await self._bodies.cancel_children(run)
        except RunStopped:
            return
        self._journal.finish(run, ending_of(run.workflow_id, run.request))
