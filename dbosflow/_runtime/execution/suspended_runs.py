"""Runs that leave memory: the body is unwound, as when the engine closes, and then the suspension is written.

```text
waits ──suspend──► stopped: its body is unwound ──► written: waiting, no owner ──► over
                          └── does not return within a second: its code is left behind, and the rest goes on
```
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.idle_runs import Departure
    from dbosflow._runtime.execution.journal_port import JournalPort
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.entries import Suspension

logger = logging.getLogger("dbosflow.runner")

_UNWINDS_WITHIN = 1.0
"""Seconds that a body gets to return."""


class RunWatch(Protocol):
    """What is told of runs that wait, so that they can be suspended."""

    def waits(self, run: Run, /) -> None:
        """An operation of ``run`` waits durably, for the first time. Called from any thread."""

    def is_over(self, run: Run, /) -> None:
        """The run is over, in whatever way."""

    def is_suspended(self, run: Run, suspension: Suspension, /) -> None:
        """The suspension of ``run`` is durable."""


class SuspendedRuns:
    """The runs of one runner that are leaving memory."""

    def __init__(
        self, journal: JournalPort, is_here: Callable[[Run], bool], *, on_over: Callable[[Run], object]
    ) -> None:
        self._journal = journal
        self._is_here = is_here
        self._on_over = on_over
        """Called with each run that was stopped and is not kept for its suspension."""
        self.watch: RunWatch | None = None
        self.when_over: Callable[[], None] = lambda: None
        """Called when a run of the runner is over, in whatever way."""
        self._loop = asyncio.get_running_loop()

    def suspend(self, run: Run, departure: Departure) -> bool:
        """Stops ``run``, and writes its suspension once its body has returned; returns whether it still only waits."""
        if not self._is_here(run) or run.is_draining or not run.stop("it only waits, and leaves memory", if_idle=True):
            return False
        run.leaving = departure.entries
        self._loop.call_later(_UNWINDS_WITHIN, self._give_up, run)
        if run.task is None or run.task.done():
            self._write(run)
        return True

    def body_stopped(self, run: Run) -> None:
        """The body of a run that was stopped has returned: the run is over, or its suspension is to be written."""
        if self._keeps(run):
            self._write(run)
        else:
            self._on_over(run)

    def _keeps(self, run: Run) -> bool:
        return run.leaving is not None and self._is_here(run) and not run.superseded

    def _write(self, run: Run) -> None:
        if self._keeps(run) and run.leaving:  # once
            entries, run.leaving = run.leaving, ()
            self._journal.finish(run, *entries)

    def _give_up(self, run: Run) -> None:
        if self._keeps(run) and run.leaving:
            logger.warning("workflow %s only waits, but its code has not returned: it is left behind", run.workflow_id)
            self._write(run)

    # -- passed on ---------------------------------------------------------------------------------------------------

    def waits(self, run: Run) -> None:
        """An operation of ``run`` waits durably, for the first time. Called from any thread."""
        if self.watch is not None:
            self.watch.waits(run)

    def is_over(self, run: Run) -> None:
        """The run is over, in whatever way."""
        if self.watch is not None and run.waits is not None:
            self.watch.is_over(run)
        self.when_over()

    def is_durable(self, run: Run, suspension: Suspension) -> None:
        """The suspension of ``run`` is durable."""
        if self.watch is not None:
            self.watch.is_suspended(run, suspension)
