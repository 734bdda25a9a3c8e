"""What the journal asks of a run, which is all that it knows of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dbosflow._runtime.runs.buffer import Buffer
    from dbosflow._runtime.runs.entries import Entry
    from dbosflow._runtime.runs.state import RunStopped
    from dbosflow._runtime.streams.writes import RunStreams
    from dbosflow.errors import WorkflowError


class Source(Protocol):
    """A run, as the journal sees it."""

    seq: int
    """The next record's place among all records of the workflow."""
    turn: int
    """How many commits with records it has had."""

    @property
    def workflow_id(self) -> str:
        """Its workflow's id."""

    @property
    def epoch(self) -> int:
        """With the worker's id, what fences its writes."""

    @property
    def inputs(self) -> Collection[str]:
        """The stream keys that outsiders write, and that end with it."""

    @property
    def buffer(self) -> Buffer:
        """What it has for the journal."""

    @property
    def stopping(self) -> RunStopped | None:
        """Why it is stopped: then nothing of it is written any more."""

    @property
    def superseded(self) -> bool:
        """Whether a new pass takes its place: then not even its end may be written."""

    @property
    def contradiction(self) -> WorkflowError | None:
        """Why its workflow is to be parked: then its end is written although it is stopped."""

    @property
    def cancelled(self) -> bool:
        """Whether it knows that it is to be cancelled."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody in this process waits until it is over."""

    @property
    def streams(self) -> RunStreams:
        """What it writes to streams."""

    @property
    def written_streams(self) -> RunStreams | None:
        """``streams``, if it has written to any."""

    @property
    def age(self) -> float:
        """Seconds since its history was read."""

    def take(self, limit: int) -> tuple[Sequence[Entry], bool]:
        """Takes pending entries in order, about ``limit`` bytes; and whether any are left."""

    def committed(self, entries: Sequence[Entry]) -> None:
        """These entries are durable: their room is free, and the outcomes among them are delivered."""

    def stop(self, why: str) -> None:
        """Ends its pass."""
