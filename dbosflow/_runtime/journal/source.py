"""What the journal asks of a run: the only things that it knows of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dbosflow._runtime.runs.buffer import Buffer
    from dbosflow._runtime.runs.entries import Entry, Waiter
    from dbosflow._runtime.runs.state import RunStopped
    from dbosflow._runtime.streams.writes import RunStreams
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow.errors import WorkflowError


class Source(Protocol):
    """A run, as the journal sees it."""

    seq: int
    """The next record's place among all records of the workflow."""
    turn: int
    """How many commits with records the run has had."""

    @property
    def workflow_id(self) -> str:
        """The workflow's id."""

    @property
    def epoch(self) -> int:
        """The run's epoch: with the worker's id, it fences the run's writes."""

    @property
    def inputs(self) -> Collection[str]:
        """The keys of the streams that outside writers write; those streams end with the workflow."""

    @property
    def buffer(self) -> Buffer:
        """What the run has for the journal."""

    @property
    def holds_back(self) -> bool:
        """Whether what is in the buffer is not to be written yet."""

    @property
    def stopping(self) -> RunStopped | None:
        """Why the run is stopped: then nothing of the run is written any more."""

    @property
    def superseded(self) -> bool:
        """Whether a new pass takes the run's place: then not even its end may be written."""

    @property
    def contradiction(self) -> WorkflowError | None:
        """Why the workflow is to be parked: then the run's end is written although the run is stopped."""

    @property
    def request(self) -> CancelRequest | None:
        """The request to end the workflow, if the run was told of one."""

    @property
    def is_awaited(self) -> bool:
        """Whether a caller in this process waits until the run is over."""

    @property
    def streams(self) -> RunStreams:
        """What the run writes to streams."""

    @property
    def written_streams(self) -> RunStreams | None:
        """``streams``, if the run has written to any."""

    @property
    def age(self) -> float:
        """Seconds since the history of the run was read."""

    def committed(self, entries: Sequence[Entry]) -> None:
        """These entries are durable: frees their room, and delivers the outcomes among them."""

    def stop(self, why: str) -> object:
        """Ends the run's pass."""


class CommittingSource(Source, Protocol):
    """A run whose transactions are committed on other connections."""

    def add_barrier(self, waiter: Waiter) -> None:
        """Notifies ``waiter`` when everything that is buffered now is durable."""
