"""What a schedule has to do at a moment: arithmetic, without a clock and without a database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING
from zlib import crc32

from dbosflow._store.schedule import Candidates
from dbosflow.serde import Codec
from dbosflow.types import Tick
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from datetime import datetime

    from dbosflow._store.schedule import ScheduleRow
    from dbosflow.schedule_definitions import ScheduleDef

MOST = 100
"""Ticks that one statement handles: a schedule that catches up on more takes several."""
_MOST_COUNTED = 1000
"""Ticks that are too old are counted up to this number; there may be millions."""
_TICK: Codec[Tick] = Codec(Tick, "a tick")
_INSTANT = timedelta(microseconds=1)
_UNNOTICED = timedelta(seconds=10)
"""At least how often a scheduler looks."""


@dataclass(frozen=True)
class Due:
    """What is due at a moment."""

    ticks: list[datetime]
    """The oldest of the ticks that may still start a workflow, up to ``MOST``."""
    next_at: datetime | None
    """The tick after these, which may be due, too."""
    left_out: int
    """How many came too long ago."""

    def is_nothing_for(self, row: ScheduleRow) -> bool:
        """Whether a schedule only has a tick that waits on."""
        waits_on = row.buffered_at is not None and bool(row.running)
        return waits_on and not self.ticks and not self.left_out and row.checked_at <= row.now


def due_of(row: ScheduleRow) -> Due:
    """The ticks of a schedule that are due.

    The next tick is the one in the row. Only if the row is from a time that has not come yet, because the clock was put
    back, it may be an earlier one, from the time on in which nobody has noticed that: what the clock has brought before
    is told by the ids of its workflows.
    """
    ticks, at = row.definition.ticks, row.next_at
    if row.checked_at > row.now:
        begin = row.now - _UNNOTICED
        again = ticks.after(begin if row.set_at > row.now else max(begin, row.set_at))
        at = min((one for one in (at, again) if one is not None), default=None)
    left_out = 0
    oldest = row.now - timedelta(seconds=row.definition.catch_up)
    while at is not None and at < oldest:
        if left_out == _MOST_COUNTED:
            at = ticks.after(oldest - _INSTANT)
            break
        left_out, at = left_out + 1, ticks.after(at)
    due: list[datetime] = []
    while at is not None and at <= row.now and len(due) < MOST:
        due.append(at)
        at = ticks.after(at)
    return Due(due, at, left_out)


def candidates_of(row: ScheduleRow, due: Due) -> Candidates:
    """The ticks that may start workflows now, the one that waits first, with what each would start."""
    definition = row.definition
    ats = [*([row.buffered_at] if row.buffered_at is not None else []), *due.ticks]
    before = [row.last_at, *ats] if definition.overlap == "allow" else [row.last_at] * len(ats)
    return Candidates(
        ids=[tick_id(definition.name, at) for at in ats],
        ats=ats,
        begins=[begins_at(definition, at) for at in ats],
        inputs=[
            input_of(definition, Tick(definition.name, at, previous)) for at, previous in zip(ats, before, strict=False)
        ],
    )


def tick_id(name: str, at: datetime) -> str:
    """The id of the workflow of a tick: the same, whoever starts it."""
    return f"{name}@{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def begins_at(definition: ScheduleDef, at: datetime) -> datetime:
    """When the workflow of a tick may begin: spread over the schedule's jitter, and the same in every process."""
    share = crc32(tick_id(definition.name, at).encode()) / 2**32
    return at + timedelta(seconds=share * definition.jitter)


def input_of(definition: ScheduleDef, tick: Tick) -> str:
    """The arguments of a workflow that a schedule starts."""
    readable(definition.input)
    if definition.tick_parameter is None:
        return definition.input
    return json.dumps({**json.loads(definition.input), definition.tick_parameter: json.loads(_TICK.dump(tick))})
