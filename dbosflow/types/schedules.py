"""What a workflow knows of the tick that has started it, and the record of a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (a tick goes on record: pydantic looks the types up)
from typing import Any, Literal

Overlap = Literal["allow", "skip", "buffer_one", "cancel_running"]
"""What a tick does while a workflow of an earlier one has not ended."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Why a schedule has started a workflow. The workflow gets it for its parameter of this type, if it has one."""

    schedule: str
    """The schedule's name."""
    scheduled_at: datetime
    """The time of the tick, in UTC: the workflow itself may begin later. For a ``trigger`` the time of the request."""
    previous_at: datetime | None = None
    """The tick before that has started a workflow, however long ago; ``None`` for the first one, and for a backfill."""
    by: Literal["time", "trigger", "backfill"] = "time"
    """Whether it was the time, or somebody has asked for it."""


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule, as it is in the database."""

    name: str
    workflow: str
    """The name of the workflow that each tick starts."""
    queue: str
    args: dict[str, Any]
    """The arguments by the names of the parameters, as JSON values, without the tick."""
    cron: str | None
    every: float | None
    """Seconds between two ticks."""
    timezone: str
    overlap: Overlap
    catch_up: float
    """How many seconds late a tick may still start its workflow."""
    jitter: float
    """Up to how many seconds after its tick a workflow begins."""
    declared_in: str | None
    """The module whose code declares it; ``None``: it was applied by a call."""
    paused: bool
    paused_because: Literal["request", "gone"] | None
    """``"gone"``: the code that has declared it does so no longer."""
    next_at: datetime | None
    """The next tick; while the schedule is paused, nothing comes of it. ``None``: none comes any more."""
    last_at: datetime | None
    """The last tick that has started a workflow."""
    missed: int
    """How many ticks since then have started none."""
    buffered_at: datetime | None
    """The tick that waits for the end of what runs."""
    running: tuple[str, ...]
    """The workflows that it has started and that have not ended, up to the newest 100."""
    created_at: datetime
    partition_key: str | None = None
    """The partition of the queue; ``None``: it has none."""
