"""What a run hands to the journal: records, stream blocks, closes, and its end. All payloads are JSON text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dbosflow._store.carried import Carried
from dbosflow.types import FrameKind, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dbosflow._records.kinds import RecordKind
    from dbosflow._store.batch_rows import BlockRow, Row
    from dbosflow._store.carried import ReadPlace, StreamPlace
    from dbosflow._store.start_options import StartOptions
    from dbosflow._store.waiter import Target


class Waiter(Protocol):
    """What an operation waits on: an asyncio future, or on a thread a concurrent one."""

    def done(self) -> bool:
        """Whether there is a result already."""

    def set_result(self, result: None, /) -> None:
        """Sets the result: the record is durable, and its turn has come."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Sets an error: the run is over."""


@dataclass(slots=True, eq=False)
class Record:
    """A record to be written. ``seq`` and ``turn`` are assigned when its batch is built."""

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
    """The child that the same statement starts."""
    loop_item: LoopItem | None = None
    """The loop's item that this record is of."""
    dead_letter: Values | None = None
    """A value for the stream of dead letters, written by the same statement."""
    attributes: Mapping[str, str | None] | None = None
    """Attributes of the workflow that the same statement sets, as JSON, or removes."""
    ends_turn: bool = False
    """Whether its turn ends with it: the program gets the outcome of a relaxed step before what comes later."""

    @property
    def size(self) -> int:
        """The record's rough size in a statement, in bytes."""
        size = 200 + len(self.output or self.error or "")
        return size if self.start is None else size + self.start.size


@dataclass(frozen=True, slots=True)
class LoopItem:
    """An item of a `for_each` loop: the loop's key, the item's offset, and the watermark: all before it are done."""

    loop: str
    offset: int
    next: int | None = None


@dataclass(slots=True, eq=False)
class Values:
    """Consecutive values of one stream by one producer; more can be added until a batch takes them."""

    key: str
    producer: str
    producer_seq: int
    attempt: str | None
    texts: list[str] = field(default_factory=list)
    size: int = 200
    is_open: bool = True
    """Whether the next value may be added: no batch has taken them."""


@dataclass(slots=True, eq=False)
class Close:
    """The end of one stream by the workflow itself: complete, with a final payload, or with an error."""

    key: str
    producer: str
    producer_seq: int
    attempt: str | None
    kind: FrameKind = FrameKind.COMPLETE
    payload: str | None = None

    @property
    def size(self) -> int:
        """The close's rough size in a statement, in bytes."""
        return 200 + len(self.payload or "")


@dataclass(slots=True, eq=False)
class AttemptRollback:
    """Precedes a new attempt of a step: rolls back the uncommitted values of earlier attempts."""

    step_key: str
    size: int = 200


@dataclass(slots=True, eq=False)
class Barrier:
    """Writes no row: its waiter is notified when everything buffered before it is durable."""

    waiter: Waiter
    size: int = 0


MOST_REFUSALS = 3
"""How often a refused end of a run is tried with less: first without the refused data, then also without the ends of
streams that have no row yet, and at last as the workflow's row alone."""


@dataclass(slots=True, eq=False)
class Ending:
    """The end of a run: of its workflow, or of this pass over a workflow that is parked as blocked."""

    status: WorkflowStatus
    output: str | None = None
    error: str | None = None
    refusals: int = 0
    """How often the database has refused what the run was to write; each refusal leaves out more."""
    timed_out: bool = False
    """Whether the workflow fails because its deadline has passed."""

    @property
    def size(self) -> int:
        """The ending's rough size in a statement, in bytes."""
        return 200 + len(self.output or "") + len(self.error or "")

    @property
    def yields_to_cancel(self) -> bool:
        """Whether a cancel request for the workflow prevents this ending."""
        return self.status is not WorkflowStatus.CANCELLED and not self.timed_out

    @property
    def sent_status(self) -> str:
        """The status as the statement takes it, which tells a deadline from other failures."""
        return "timed out" if self.timed_out else self.status

    @property
    def undoes(self) -> bool:
        """Whether the workflow's compensations are carried out first."""
        return self.status not in (WorkflowStatus.SUCCEEDED, WorkflowStatus.RUNNING)

    @property
    def ends_streams(self) -> bool:
        """Whether the ending closes streams left open; a reader sees the end of the workflow in any case."""
        return self.status.ended and self.refusals < MOST_REFUSALS

    @property
    def frame(self) -> FrameKind:
        """The terminal frame of the streams that the ending closes."""
        return _FRAMES[self.status]


@dataclass(slots=True, eq=False)
class Suspension(Ending):
    """The end of a pass whose workflow only waits: until ``delay`` seconds from the statement, or for its targets."""

    delay: float | None = None
    targets: tuple[Target, ...] = ()

    @property
    def yields_to_cancel(self) -> bool:
        """No: a workflow that is to be cancelled is queued by the same entry."""
        return False


@dataclass(slots=True, eq=False)
class Continuation(Ending):
    """The end of an iteration: the workflow is continued as new, with other arguments."""

    arguments: str = "{}"
    iteration: int = 0
    """The number of the next iteration."""
    inputs: Mapping[str, ReadPlace] = field(default_factory=dict)
    """How far each input was read."""
    topics: Mapping[str, ReadPlace] = field(default_factory=dict)
    """How far the messages on each topic were received."""

    @property
    def size(self) -> int:
        """The continuation's rough size in a statement, in bytes."""
        return 600 + len(self.arguments)

    def carried(self, streams: Mapping[str, StreamPlace], closed: Mapping[str, StreamPlace]) -> Carried:
        """All that the next iteration gets, of which the statement gives the ends of the streams."""
        return Carried(streams, self.inputs, self.topics, closed)


_FRAMES = {
    WorkflowStatus.SUCCEEDED: FrameKind.COMPLETE,
    WorkflowStatus.FAILED: FrameKind.ERROR,
    WorkflowStatus.CANCELLED: FrameKind.CANCELLED,
}

Entry = Record | Values | Close | AttemptRollback | Barrier | Ending


class Whole(Protocol):
    """All that a workflow has written when it ends before its start is: a slice of the statement with that."""

    @property
    def records(self) -> Sequence[Row]:
        """The rows of its records."""

    @property
    def blocks(self) -> Sequence[BlockRow]:
        """The blocks that it appends to streams."""

    @property
    def writes_streams(self) -> bool:
        """Whether it writes to streams, or ends any."""

    @property
    def size(self) -> int:
        """Its rough size in the statement, in bytes."""

    def topics(self) -> Iterable[str]:
        """The topics that have news when it is durable."""

    def acknowledged(self, started: set[str]) -> None:
        """It is durable; ``started`` has the ids of what the statement has started besides."""


@dataclass(slots=True, eq=False)
class Start:
    """A workflow to be started. ``on_decided`` is called with whether the row is new, or with the error.

    ``owned`` workflows run in this process; others wait in their queue.
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
    """The keys of the streams that outside writers may write."""
    options: StartOptions | None = None
    is_urgent: bool = False
    """Whether other processes are told that it has a deadline which comes soon."""
    ending: Ending | None = None
    """Its end, if it has ended before its start is written: then both are one row, unless the database refuses that."""
    whole: Whole | None = None
    """What it has written by then, if that is more than its end."""

    @property
    def outcome(self) -> Ending | None:
        """The end that is in its row."""
        return self.ending if self.ending is not None and not self.ending.refusals else None

    @property
    def content(self) -> Whole | None:
        """What the same statement writes of it, besides its row."""
        return self.whole if self.whole is not None and self.outcome is not None else None

    def leave_out_end(self) -> bool:
        """The database has refused its end, or what comes with that: leaves both out; returns whether there was one."""
        ending = self.outcome
        if ending is not None:
            ending.refusals += 1
        return ending is not None

    @property
    def size(self) -> int:
        """The start's rough size in a statement, in bytes."""
        end = 0 if self.ending is None else self.ending.size
        return 200 + len(self.input) + end + (0 if self.whole is None else self.whole.size)

    def topics(self) -> Iterable[str]:
        """The topics that have news when it is durable: its streams. Nobody waits for what gets its id just now."""
        return () if self.content is None else self.content.topics()
