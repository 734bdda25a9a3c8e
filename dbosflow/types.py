"""The types that every floor shares: statuses, stream items, and the records of workflows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 (some of these go on record: pydantic looks the types up)
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")

LONGEST_DURATION = 36525 * 24 * 3600.0
"""In seconds: a hundred years, which both Python's timers and Postgres's intervals can hold."""


class WorkflowStatus(StrEnum):
    """The state of a workflow.

    ```text
    queued ──claim──► running ──► succeeded | failed | cancelled      (final)
      ▲                  │
      ├── lease lost ────┤
      ├── woken ◄── waiting        it only waits, and is in no process's memory
      └── resume ◄── blocked       its code and records disagree, or its workers keep dying
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
    """The content of a stream block: values, or one control frame."""

    VALUES = "values"
    ROLLBACK = "rollback"
    COMPLETE = "complete"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow the frame."""
        return self in _TERMINAL


_TERMINAL = frozenset({FrameKind.COMPLETE, FrameKind.ERROR, FrameKind.CANCELLED})


class StreamState(StrEnum):
    """Whether a stream can still grow, and if not, how it ended. The end is the kind of its terminal frame."""

    OPEN = "open"
    COMPLETE = "complete"
    ERROR = "error"
    CANCELLED = "cancelled"


Ranges = tuple[tuple[int, int], ...]
"""Ranges of stream offsets. Each is ``(first, stop)``; ``stop`` is not included."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """An attempt of a step failed or was abandoned: the values it wrote to this stream no longer count."""

    ranges: Ranges
    step_key: str
    attempt: str
    """``epoch.n``, or ``*`` if all attempts of the step share the values that they wrote."""

    def __contains__(self, offset: object) -> bool:
        return isinstance(offset, int) and any(first <= offset < stop for first, stop in self.ranges)


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    """How a stream ended: the kind of its terminal frame, the error if there was one, the writer's final payload."""

    kind: FrameKind
    error: BaseException | None = None
    final: Any = None


@dataclass(frozen=True, slots=True)
class StreamValue(Generic[T]):
    """One item of a stream channel: a value, a rollback, or the end.

    A value has ``closed`` false and no ``error``. The last item has ``closed`` true and no value, and an ``error`` if
    the stream ended badly. An item with a ``rollback`` has no value: it rolls back values that the reader was given
    earlier. ``offset`` is the item's own offset; to resume after it, read from ``offset + 1``.
    """

    value: T
    offset: int
    closed: bool = False
    error: BaseException | None = None
    rollback: Rollback | None = None


@dataclass(frozen=True, slots=True)
class Processed(Generic[T]):
    """The result of a `for_each` loop over a stream.

    ``count`` items were handled and ``failed`` items were skipped. ``last`` is the greatest offset among them, or
    ``None`` if there were none. ``results`` has the handler's results in the order of the stream if ``collect`` was
    set, and is empty otherwise.
    """

    count: int
    failed: int
    last: int | None
    results: list[T]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The answer to a request to cancel a workflow.

    ``outcome`` is ``"cancelled"`` (the workflow had not begun and has ended now), ``"requested"`` (its worker, or the
    next one, carries the cancellation out) or ``"ended"`` (the workflow had ended before). ``status`` is the workflow's
    status after the request.
    """

    outcome: _Applied | _Refused
    status: WorkflowStatus


@dataclass(frozen=True, slots=True)
class Resumption:
    """The answer to a request to resume a workflow.

    ``outcome`` is ``"resumed"`` (the workflow was blocked and now waits for a worker) or ``"unchanged"`` (it was not
    blocked). ``status`` is the workflow's status after the request.
    """

    outcome: Literal["resumed", "unchanged"]
    status: WorkflowStatus


_Applied = Literal["cancelled", "requested", "ended", "resumed", "deleted", "unpinned"]
_Refused = Literal["active", "needed", "held", "unchanged", "unknown"]


@dataclass(frozen=True, slots=True)
class WorkflowChange:
    """What came of a request about one of several workflows.

    ``outcome`` is

    - ``"cancelled"`` (it had not begun, and has ended now), ``"requested"`` (its worker, or the next one, carries the
      cancellation out), or ``"ended"`` (it had ended before), of a cancellation;
    - ``"resumed"`` (it was blocked, and now waits for a worker), of a resumption;
    - ``"deleted"``, ``"active"`` (it has not ended), ``"needed"`` (a workflow that has not ended may ask for its
      outcome), or ``"held"`` (a statement or snapshot is open that began before its end: try again), of a deletion;
    - ``"unpinned"`` (any worker of its queue may take it), of an unpinning;
    - ``"unchanged"`` (the request does not apply to it) or ``"unknown"`` (no workflow has the id).

    ``status`` is its status after the request, or its last one; ``None`` if no workflow has the id.
    """

    id: str
    outcome: Literal[
        "cancelled",
        "requested",
        "ended",
        "resumed",
        "deleted",
        "active",
        "needed",
        "held",
        "unpinned",
        "unchanged",
        "unknown",
    ]
    status: WorkflowStatus | None


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """The record of a workflow in Postgres. Payloads are JSON as written; times are timezone-aware."""

    id: str
    name: str
    status: WorkflowStatus
    queue: str
    priority: int
    input: Any
    output: Any
    """From a handle that knows the function: the value that ``result()`` returns. Otherwise JSON."""
    error: Any
    """From a handle: the exception that ``result()`` raises. In a listing: its record, a dict that names its type."""
    epoch: int
    worker_id: str | None
    parent_id: str | None
    recoveries: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    attributes: dict[str, str | int | bool] = field(default_factory=dict)
    """What the workflow can be searched by."""
    forked_from: str | None = None
    """For a fork: the id of the workflow that it is a copy of."""
    forked_turn: int | None = None
    """For a fork: the turn from which it goes on by itself."""
    pinned_version: str | None = None
    """The version whose workers alone may run it; ``None``: any worker of its queue may."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a listing."""

    items: tuple[T, ...]
    next: str | None
    """The cursor of the next page, an opaque text; ``None`` if nothing is left."""


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One durable record of a workflow: the outcome of a step, a failed attempt, a sleep, and the like."""

    key: str
    kind: str
    seq: int
    turn: int
    epoch: int
    attempt: str | None
    """The attempt's name, ``epoch.n``. Another owner of the workflow has another epoch, and so other names."""
    output: Any
    error: dict[str, Any] | None
    child_id: str | None
    """The id of the workflow that was started or waited for."""
    wake_at: datetime | None
    """When a sleep ends."""
    started_at: datetime
    recorded_at: datetime
    duration: float
    """Seconds that the operation took. A sleep is recorded when it begins; its duration runs until its end."""
    number: int | None = None
    """The number of the attempt among all attempts of its step, from 1 on, in any process."""
    attempts: int | None = None
    """The number of attempts that the step took; ``None`` while another one may follow."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a workflow, as stored in Postgres. Offsets count frames; each control frame takes one, too."""

    key: str
    state: StreamState
    first: int
    """The offset of the first frame that is left. Above 0 once the stream was trimmed."""
    tail: int
    """The offset after the last frame: the next frame gets it."""
    committed: int
    """The offset up to which a committed view can read now. Frames from here on may still be rolled back."""
    values: int
    """The number of values that are left, including rolled back ones."""
    bytes: int
    blocks: int
    """The number of rows that store the stream."""
    producers: tuple[str, ...]
    """The writers: a branch by its path (the body's own is empty), an attempt as ``step key@attempt``."""
    created_at: datetime
    written_at: datetime


StreamEventKind = Literal["created", "write", "rollback", "close", "error", "back-pressure", "read"]
"""The kinds of events that an observer of streams can be notified of."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """An event of a stream in this process, reported after it is durable (``back-pressure``: at once).

    - ``created``: the first frame was written.
    - ``write``: a block of values was written.
    - ``rollback``: some values no longer count.
    - ``close``: the stream ended well, or with its workflow's cancellation.
    - ``error``: the stream ended with an error.
    - ``back-pressure``: a writer of the workflow waits for room. The event has no key.
    - ``read``: a reader was given a page of ``count`` frames.
    """

    event: StreamEventKind
    workflow_id: str
    key: str = ""
    offset: int = 0
    count: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """The last value of an event that a workflow has set."""

    name: str
    value: Any
    """Plain JSON."""
    offset: int
    """The place of the value among all that the event had; ``get_event(after=...)`` waits for a newer one."""
    set_at: datetime
    """When the value became durable."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured quantity: how often it was measured, the sum and the largest value."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0

    @property
    def mean(self) -> float:
        """The average; 0 if nothing was measured."""
        return self.total / self.count if self.count else 0.0

    def and_(self, value: float) -> Measure:
        """The measure with one more value."""
        return Measure(self.count + 1, self.total + value, max(self.largest, value))


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Statistics of an engine's streams in this process, since the engine was opened."""

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
    """Pages that were given to readers."""
    lag: Measure
    """How many frames a reader was behind when it was given a page."""
    failed_hooks: int
    """Calls of observers that raised an exception."""
    dropped_events: int
    """Events that were dropped because observers were too slow."""
