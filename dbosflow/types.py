"""The words that every floor shares: statuses, stream items, and the record of a workflow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (some of these go on record: pydantic looks the types up)
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")


class WorkflowStatus(StrEnum):
    """Where a workflow stands.

    ```text
    queued ──claim──► running ──► succeeded | failed | cancelled      (final)
      ▲                  │
      ├── lease lost ────┤
      └── resume ◄── blocked       its code and records disagree, or it kills its owners
    ```
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


class StreamState(StrEnum):
    """Whether anything may follow in a stream, and how it ended if not: as its terminal frame says."""

    OPEN = "open"
    COMPLETE = "complete"
    ERROR = "error"
    CANCELLED = "cancelled"


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
    stream did not end well. An item with a ``rollback`` has no value: it rolls back values that this reader was given
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
class Resumption:
    """What came of asking for a workflow to be resumed.

    ``outcome`` is ``"resumed"`` (it was blocked, and waits for a worker now) or ``"unchanged"`` (it was not blocked: it
    waits, runs or has ended, as ``status`` says).
    """

    outcome: Literal["resumed", "unchanged"]
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
    """From a handle that knows the function: what ``result()`` gives. Else JSON."""
    error: Any
    """From a handle: the exception that ``result()`` raises. In a listing: its record, a dict with its type."""
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
    """Its name: ``epoch.n``, which no other owner of the workflow can give."""
    output: Any
    error: dict[str, Any] | None
    child_id: str | None
    """The workflow that was started, or waited for."""
    wake_at: datetime | None
    """When a sleep ends."""
    started_at: datetime
    recorded_at: datetime
    duration: float
    """Seconds that it took. A sleep's is recorded when it begins: until it ended, or is to end."""
    number: int | None = None
    """Which attempt of its step it was, from 1 on, whoever ran it."""
    attempts: int | None = None
    """How many attempts its step took; ``None`` while it may take more."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a workflow as Postgres holds it. Offsets count frames, and control frames take one each."""

    key: str
    state: StreamState
    first: int
    """The offset of the first frame that is still there: above 0 once the stream was trimmed."""
    tail: int
    """The offset after its last frame: where the next one goes."""
    committed: int
    """The offset that a committed view can read up to now: what follows may still be rolled back."""
    values: int
    """How many values are there, those that were rolled back included."""
    bytes: int
    blocks: int
    """The rows that hold it."""
    producers: tuple[str, ...]
    """Who has written to it: a branch by its path (the body's own is empty), an attempt as ``step key@attempt``."""
    created_at: datetime
    written_at: datetime


StreamEventKind = Literal["created", "write", "rollback", "close", "error", "back-pressure", "read"]
"""What an observer can be notified of."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened to a stream in this process, reported after it was durable (``back-pressure``: at once).

    ``created``: its first frame. ``write``: a block of values. ``rollback``: some no longer count. ``close``: it ended
    well, or with its workflow's cancellation; ``error``: with an error. ``back-pressure``: a writer of the workflow
    waits for room; it has no key. ``read``: a reader was given a page, of ``count`` frames.
    """

    event: StreamEventKind
    workflow_id: str
    key: str = ""
    offset: int = 0
    count: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Measure:
    """How often something was measured, its sum and its largest value."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0

    @property
    def mean(self) -> float:
        """The average; 0 if there was none."""
        return self.total / self.count if self.count else 0.0

    def and_(self, value: float) -> Measure:
        """With one value more."""
        return Measure(self.count + 1, self.total + value, max(self.largest, value))


@dataclass(frozen=True, slots=True)
class StreamStats:
    """What an engine's streams did since it was opened, in this process."""

    values: int
    bytes: int
    blocks: int
    rollbacks: int
    back_pressure: int
    """How often a writer waited for room."""
    flush: Measure
    """Seconds from the gathering of a batch with stream blocks to its commit."""
    first_value: Measure
    """Seconds from the start of a run to the commit of its first value."""
    reads: int
    """Pages that readers were given."""
    lag: Measure
    """Frames that a reader had not seen when it was given a page."""
    failed_hooks: int
    """Calls of observers that raised."""
    dropped_events: int
    """Events that no observer was notified of, because observers were too slow."""
