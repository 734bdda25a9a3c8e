"""Checks workers: none is taken for dead that lives, no sleep ends early, and work goes on at a pace.

Times are compared by the database's clock and by the clock of the machine that the run is on, never by the wall clock
of a worker, which may be wrong by hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.chaos.history.workflow_history import WorkflowHistory

WOKE = "woke"
"""What a workflow notes when a sleep of its body is over."""

_CLOCK_ERROR = 0.005
"""Seconds by which two clocks of one machine may seem to differ."""
_SHORTEST_SPAN = 15.0
_SLOWEST = 0.1
"""Of the pace without a held snapshot, as work goes on with one. Each fault costs more than that for a moment."""

_DEATHS: LiteralString = """
    SELECT id::text, pid, ended_because AS because, lease,
           extract(epoch FROM renewed_at)::double precision AS renewed_at,
           extract(epoch FROM ended_at)::double precision AS ended_at
    FROM dbosflow.worker WHERE state = 'dead' ORDER BY ended_at"""


class Span(NamedTuple):
    """From when until when, by the clock of the machine that the run is on."""

    since: float
    until: float

    def meets(self, other: Span) -> bool:
        """Whether they have a moment in common."""
        return self.since <= other.until and other.since <= self.until


@dataclass(frozen=True)
class Disruption:
    """What may have kept leases from being renewed: that of one process, or all of them (``None``)."""

    pid: int | None
    span: Span


class DeathChecker:
    """Checks each death once: whoever was taken for dead was dead, or could not renew."""

    def __init__(self, url: str) -> None:
        self.checked: set[str] = set()
        """The leases that nobody will ask for any more."""
        self._url = url

    def check(
        self, disruptions: Sequence[Disruption], ended: Mapping[int, float], *, until: float = inf
    ) -> Iterator[str]:
        """Checks the deaths up to that time. ``ended``: since when a process may be gone."""
        dead = _rows(self._url, _DEATHS)
        self.checked &= {one.id for one in dead}
        for one in dead:
            if one.id not in self.checked and one.ended_at <= until:
                self.checked.add(one.id)
                yield from _check_death(one, disruptions, ended.get(one.pid, inf) <= one.ended_at)


def _check_death(dead: Any, disruptions: Sequence[Disruption], gone: bool) -> Iterator[str]:  # noqa: FBT001 (one caller)
    if dead.because == "vanished" and not gone:
        yield f"worker process {dead.pid} was taken for vanished, and lived"
    silent = Span(dead.renewed_at, dead.ended_at)
    excused = any(one.pid in {None, dead.pid} and one.span.meets(silent) for one in disruptions)
    if dead.because == "expired" and not (gone or excused):
        yield (
            f"worker process {dead.pid} was taken for dead {dead.ended_at - dead.renewed_at:.1f} s after its last"
            f" renewal, with a lease of {dead.lease:g} s, and nothing had kept it from renewing"
        )


def check_wakes(history: WorkflowHistory) -> Iterator[str]:
    """No sleep was over before the time that is on record for it."""
    wake_at = {step["key"]: step["wake_at"] for step in history.steps if step["kind"] == "sleep"}
    for line in history.lines:
        if line.what != WOKE:
            continue
        due = wake_at.get(line.key)
        if due is None:
            yield f"it woke from {line.key}, which is not on record"
        elif line.at < due - _CLOCK_ERROR:
            yield f"it woke from {line.key} {due - line.at:.3f} s early"


@dataclass
class Pace:
    """How many records were made a second, with a snapshot held and without."""

    held: float
    free: float
    seconds: float

    def __str__(self) -> str:
        return f"held for {self.seconds:.0f} s: {self.held:.0f} records/s, else {self.free:.0f}"


def pace(per_second: Mapping[int, int], spans: Sequence[Span], whole: Span) -> Pace:
    """The pace during the whole, which the drain is no part of; ``per_second``: how many records each second has."""
    seconds = range(int(whole.since), int(whole.until))
    during = [second for second in seconds if any(span.meets(Span(second, second + 1)) for span in spans)]
    held = sum(per_second.get(second, 0) for second in during)
    rest = sum(per_second.get(second, 0) for second in seconds) - held
    return Pace(held / max(1, len(during)), rest / max(1, len(seconds) - len(during)), len(during))


def check_pace(found: Pace) -> Iterator[str]:
    """A snapshot that somebody holds slows work down by less than an order of magnitude."""
    if found.seconds >= _SHORTEST_SPAN and found.held < _SLOWEST * found.free:
        yield f"work came to a stand with a snapshot {found}"


def _rows(url: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(url, autocommit=True, application_name="looking", row_factory=namedtuple_row) as connection:
        return connection.execute(query).fetchall()
