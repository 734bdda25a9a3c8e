"""What keeps a run in memory; and if nothing does, what its workflow waits for in the tables.

A run may go if each of its branches is inside an operation that waits durably, or waits for tasks of its own run, and
no plain timer of its code is pending: such a timer would go with it, and nothing would bring it back. A lock, an event
or a queue may be set by a thread, which cannot be seen; so it keeps the run, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from dbosflow._records.keys import UNTIL
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.process.clock import CLOCK
from dbosflow._runtime.replay.stalls import Awaited, awaited_by, title
from dbosflow._runtime.runs.entries import Record, Suspension
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.durable_waits import DurableWait, Standing
    from dbosflow._runtime.runs.entries import Entry

_MOST_TARGETS = 10_000
"""For how many things a suspended workflow may wait: each is a row or two."""


class Departure(NamedTuple):
    """What a run that only waits has for the journal: the ends of timed waits, and its suspension."""

    records: tuple[Record, ...]
    suspension: Suspension

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries, in order."""
        return (*self.records, self.suspension)


def departure_of(run: Run) -> Departure | str:
    """How the run may leave memory; or what keeps it there."""
    kept_by = _state(run) or _branches(run)
    if kept_by is not None:
        return kept_by
    standings = {wait: wait.standing() for wait in run.waits or ()}
    for standing in standings.values():
        if isinstance(standing, str):
            return standing
    return _departure(run, standings.items())  # type: ignore[arg-type]  # no texts are left


def _state(run: Run) -> str | None:
    if run.is_cut_short or run.is_draining:
        return "its end"
    if run.environment.clock is not CLOCK:
        return "the clock of a test"
    if run.is_replaying:
        return "its replay"
    if run.bodies or not run.waits:
        return "code that runs"
    return "records that are being written" if run.buffer.size else None


def _branches(run: Run) -> str | None:
    waits = len(run.waits or ())
    if not run.definition.is_async:
        owner = run.root.owner
        return None if owner is not None and owner.operating and waits == 1 else "code that runs"
    coroutines = run.coroutines
    if not all(coroutine.waits and not coroutine.is_woken for coroutine in coroutines):
        return "code that runs"
    if sum(coroutine.operating for coroutine in coroutines) != waits:
        return "an operation under way"
    for coroutine in coroutines:
        if not coroutine.operating:
            awaited, said = awaited_by(coroutine)
            if awaited is not Awaited.OWN:
                return f"{said}, in {title(coroutine.branch.path)}"
    return "a plain timer" if run.has_plain_timer else None


def _departure(run: Run, standings: Iterable[tuple[DurableWait, Standing]]) -> Departure | str:
    now = time.monotonic()
    targets = tuple({target: None for _, standing in standings for target in standing.targets})
    ends = [end for _, standing in standings for end in (standing.due, standing.until) if end is not None]
    ends += (run.limits or {}).values()
    if not targets and not ends:
        return "nothing that is in the tables"
    if len(targets) > _MOST_TARGETS:
        return f"more than {_MOST_TARGETS} things"
    untils = [
        (wait.key + UNTIL, standing.until - now)
        for wait, standing in standings
        if standing.until is not None and run.recorded(wait.key + UNTIL) is None
    ]
    delay = max(min(ends) - now, 0.0) if ends else None
    records = tuple(Record(key, RecordKind.UNTIL, delay=max(left, 0.0)) for key, left in untils)
    return Departure(records, Suspension(WorkflowStatus.WAITING, delay=delay, targets=targets))
