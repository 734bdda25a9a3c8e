"""Runs that cannot begin, or go on, for want of what is in the tables.

```text
a payload cannot be decoded here ──► the run stops, and writes nothing ──► put off: any worker claims it a little later
  and it was asked to end ─────────► it ends so: its body does not begin, and nothing has to be read
the records can never be read    ──► the workflow is parked as blocked
```
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dbosflow.errors import CodecError, NonDeterminismError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dbosflow._runtime.execution.bodies import Bodies
    from dbosflow._runtime.execution.ownership import OwnershipPort
    from dbosflow._runtime.execution.run import Run

logger = logging.getLogger("dbosflow.runner")


def refuse(run: Run, why: Exception, bodies: Bodies) -> None:
    """Ends a run before its body begins: without its records it would begin anew."""
    if isinstance(why, CodecError):
        if not run.cancelled:
            run.give_back(why)
    else:
        msg = f"its records cannot be read: {type(why).__name__}: {why}"
        run.contradict(NonDeterminismError(run.workflow_id, msg))
        run.stop(msg)
    bodies.over(run, None, why)


class UnreadableRuns:
    """The runs of one runner that are given back."""

    def __init__(
        self,
        ownership: OwnershipPort,
        is_here: Callable[[Run], bool],
        *,
        begin_task: Callable[[Coroutine[None, None, None], str], None],
        on_over: Callable[[Run], object],
    ) -> None:
        self._ownership = ownership
        self._is_here = is_here
        self._begin_task = begin_task
        self._on_over = on_over

    def body_stopped(self, run: Run) -> bool:
        """The body of a run that was stopped has returned; returns whether its workflow is given back."""
        if run.unreadable is None or run.superseded or not self._is_here(run):
            return False
        self._begin_task(self._put_off(run, run.unreadable), f"dbosflow-put-off-{run.workflow_id}")
        return True

    async def _put_off(self, run: Run, why: CodecError) -> None:
        logger.error("workflow %s is left to a worker that can read it: %s", run.workflow_id, why)
        try:
            await self._ownership.put_off(run, why)
        finally:
            self._on_over(run)
