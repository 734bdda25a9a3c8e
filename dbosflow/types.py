"""The words that every floor shares: statuses, stream items, and the record of a workflow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from datetime import datetime

T = TypeVar("T")


class WorkflowStatus(StrEnum):
    """Where a workflow stands.

    ::

        queued ──claim──► running ──► succeeded | failed | cancelled      (final)
          ▲                  │
          ├── lease lost ────┤
          └── resume ◄── blocked       its code and records disagree, or it kills its owners
    """

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    WAITING = "waiting"
    BLOCKED = "blocked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self in _ENDED


_ENDED = frozenset({WorkflowStatus.SUCCEEDED, WorkflowStatus.FAILED, WorkflowStatus.CANCELLED})


class FrameKind(StrEnum):
    """What a stream block holds: values, or one control frame."""

    VALUES = "values"
    ROLLBACK = "rollback"
    COMPLETE = "complete"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow it."""
        return self in _TERMINAL


_TERMINAL = frozenset({FrameKind.COMPLETE, FrameKind.ERROR, FrameKind.CANCELLED})


Ranges = tuple[tuple[int, int], ...]
"""Offsets of a stream: each range from its first to the one after its last."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """An attempt of a step is over without success: what it wrote to this stream no longer counts."""

    ranges: Ranges
    step_key: str
    attempt: str
    """``epoch.n``, or ``*`` where all attempts of the step shared what they wrote."""

    def __contains__(self, offset: object) -> bool:
        return isinstance(offset, int) and any(first <= offset < stop for first, stop in self.ranges)


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    """How a stream ended: its terminal frame's kind, the error if that was the cause, the writer's final payload."""

    kind: FrameKind
    error: BaseException | None = None
    final: Any = None


@dataclass(frozen=True, slots=True)
class StreamValue(Generic[T]):
    """One item of a stream channel.

    A value has ``closed`` false and no ``error``. The last item has ``closed`` true, no value, and ``error`` where the
    stream did not end well. An item with a ``rollback`` has no value: it takes back values that this reader was given
    before. ``offset`` is the item's own; reading resumes at ``offset + 1``.
    """

    value: T
    offset: int
    closed: bool = False
    error: BaseException | None = None
    rollback: Rollback | None = None


@dataclass(frozen=True, slots=True)
class Processed(Generic[T]):
    """What a durable loop over a stream has done.

    ``count`` items were handled and ``failed`` ones passed over; ``last`` is the greatest offset among them (``None``:
    there were none). ``results`` are the handler's, in the order of the stream, where they were asked for.
    """

    count: int
    failed: int
    last: int | None
    results: list[T]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What came of asking for a workflow's cancellation.

    ``outcome`` is ``"cancelled"`` (nobody had begun it: it has ended), ``"requested"`` (its owner, or the next one,
    carries it out) or ``"ended"`` (it had ended before, as ``status`` says).
    """

    outcome: Literal["cancelled", "requested", "ended"]
    status: WorkflowStatus


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """The record of a workflow as Postgres holds it. Payloads are JSON as written; times are aware."""

    id: str
    name: str
    status: WorkflowStatus
    queue: str
    priority: int
    input: Any
    output: Any
    error: dict[str, Any] | None
    epoch: int
    worker_id: str | None
    parent_id: str | None
    recoveries: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One durable record of a workflow: a step's outcome, a failed attempt, a sleep."""

    key: str
    kind: str
    seq: int
    turn: int
    epoch: int
    attempt: str | None
    output: Any
    error: dict[str, Any] | None
    started_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a workflow: how many frames it holds and how it ended, if it did."""

    key: str
    tail: int
    bytes: int
    closed: FrameKind | None
