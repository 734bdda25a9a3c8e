"""What a run hands to the journal: records, stream blocks, closes, and its end. All payloads are JSON text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dbosflow.types import FrameKind, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._records.kinds import RecordKind


class Waiter(Protocol):
    """What an operation waits on: an asyncio future, or for a thread a concurrent one."""

    def done(self) -> bool:
        """Whether it has a result already."""

    def set_result(self, result: None, /) -> None:
        """Sets the result: the record is durable and its turn has come."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Sets an error: the run is over."""


@dataclass(slots=True, eq=False)
class Record:
    """A durable record to be. ``seq`` and ``turn`` are given when its batch is built."""

    key: str
    kind: RecordKind
    output: str | None = None
    error: str | None = None
    attempt: str | None = None
    child_id: str | None = None
    delay: float | None = None
    """Seconds from the commit to its ``wake_at``."""
    elapsed: float = 0.0
    waiter: Waiter | None = None
    start: Start | None = None
    """The child that starts in the same statement."""
    loop_item: LoopItem | None = None
    """The item of a loop whose record it is."""
    dead_letter: Values | None = None
    """A value for the stream of dead letters, written in the same statement."""

    @property
    def size(self) -> int:
        """Its rough size in a statement, in bytes."""
        return 200 + len(self.output or "") + len(self.error or "") + (len(self.start.input) if self.start else 0)


@dataclass(frozen=True, slots=True)
class LoopItem:
    """An item of a `for_each` loop: the loop's key, the item's offset, and the one before which every item is done."""

    loop: str
    offset: int
    next: int | None = None


@dataclass(slots=True, eq=False)
class Values:
    """Consecutive values of one stream by one producer; open for more until a batch takes it."""

    key: str
    producer: str
    producer_seq: int
    attempt: str | None
    texts: list[str] = field(default_factory=list)
    size: int = 200


@dataclass(slots=True, eq=False)
class Close:
    """The end of one stream by its own writer: complete, with a final payload, or with an error."""

    key: str
    producer: str
    producer_seq: int
    attempt: str | None
    kind: FrameKind = FrameKind.COMPLETE
    payload: str | None = None

    @property
    def size(self) -> int:
        """Its rough size in a statement, in bytes."""
        return 200 + len(self.payload or "")


@dataclass(slots=True, eq=False)
class AttemptRollback:
    """Before a new attempt of a step: the uncommitted values of earlier ones are rolled back."""

    step_key: str
    size: int = 200


@dataclass(slots=True, eq=False)
class Barrier:
    """Writes no row: its waiter is notified when all that was buffered before it is durable."""

    waiter: Waiter
    size: int = 0


MOST_REFUSALS = 3
"""How often the end of a run is tried without what was refused: first all else, then without the ends of streams that
nobody knows of yet, and at last the row of the workflow alone."""


@dataclass(slots=True, eq=False)
class Ending:
    """The end of a run: of its workflow, or of this pass of a workflow that is parked as blocked."""

    status: WorkflowStatus
    output: str | None = None
    error: str | None = None
    refusals: int = 0
    """How often the database has refused what the run was to write: then it leaves more and more out."""

    @property
    def size(self) -> int:
        """Its rough size in a statement, in bytes."""
        return 200 + len(self.output or "") + len(self.error or "")

    @property
    def yields_to_cancel(self) -> bool:
        """Whether it is not written of a workflow that somebody has asked to cancel."""
        return self.status is not WorkflowStatus.CANCELLED

    @property
    def ends_streams(self) -> bool:
        """Whether it closes what the workflow leaves open; a reader sees the end of the workflow anyhow."""
        return self.status.ended and self.refusals < MOST_REFUSALS

    @property
    def frame(self) -> FrameKind:
        """The terminal frame of the streams that it closes."""
        return _FRAMES[self.status]


_FRAMES = {
    WorkflowStatus.SUCCEEDED: FrameKind.COMPLETE,
    WorkflowStatus.FAILED: FrameKind.ERROR,
    WorkflowStatus.CANCELLED: FrameKind.CANCELLED,
}

Entry = Record | Values | Close | AttemptRollback | Barrier | Ending


@dataclass(slots=True, eq=False)
class Start:
    """A workflow to be started. ``on_decided`` is called with whether the row is new, or why it could not be.

    ``owned`` ones run in this process; others wait in their queue.
    """

    workflow_id: str
    name: str
    input: str
    queue: str
    priority: int
    on_decided: Callable[[bool | BaseException], None]
    owned: bool = True
    parent_id: str | None = None
    parent_key: str | None = None
    inputs: tuple[str, ...] = ()
    """The stream keys that outsiders may write."""
