"""The states of a workflow, its record, and the answers to requests about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 (some of these go on record: pydantic looks the types up)
from enum import StrEnum
from typing import Any, Literal

OnDuplicate = Literal["existing", "raise", "replace", "cancel_running"]
"""What a start does when another workflow of its queue has its ``dedup_key``: see the ``options`` of a workflow."""


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
    - ``"changed"`` (it waits with that priority), of a change of priority;
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
        "changed",
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
    partition_key: str | None = None
    """The partition of its queue; ``None``: it has none."""
    iteration: int = 0
    """How often it was continued as new. Its ``input`` has the arguments of that iteration."""


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
    iteration: int = 0
    """The iteration that the record belongs to: 0, and one more with each ``continue_as_new``."""
