"""What an engine tells about its streams: events, and statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
