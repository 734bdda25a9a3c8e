"""What the owner of a workflow knows of one of its streams.

```text
             close ──► closed ──the end has its offset──► ended
open ──────┤   ▲          │
             │   └─ reopen ─┘   the attempt that asked for the close has been rolled back
             └── written ──► the tail moves on, when what was written has its offsets
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow._runtime.runs.entries import Values


class StreamState:
    """One stream: its acknowledged tail, and whether anything may follow."""

    __slots__ = ("bytes", "closed", "closed_by_step", "ended", "is_used", "open_values", "repeats", "tail", "values")

    def __init__(self, tail: int = 0, *, closed: bool = False, values: int = 0, size: int = 0) -> None:
        self.tail = tail
        """The offset at which the next block starts."""
        self.values = values
        """How many values were ever written to the stream, including buffered and rolled-back ones."""
        self.bytes = size
        """The size of those values, each with the comma or bracket behind it."""
        self.closed = closed
        """Whether writes are refused."""
        self.closed_by_step = False
        """Whether the close came from an attempt of this pass: a replay may come to it sooner, or later, or never."""
        self.ended = closed
        """Whether the terminal frame has its offset."""
        self.open_values: Values | None = None
        """The block that the next value joins, if it is open, of the same producer, and has room."""
        self.is_used = False
        """Whether the closed stream was written to or closed in this pass."""
        self.repeats = False
        """Whether the close that comes next is on record already."""

    def written(self, size: int) -> None:
        """Counts one more buffered value, of ``size`` bytes including the separator."""
        self.values += 1
        self.bytes += size

    def close(self, *, by_step: bool) -> None:
        """Refuses writes from here on."""
        self.closed = True
        self.closed_by_step = by_step
        self.open_values = None

    def advance(self, tail: int) -> None:
        """Everything up to ``tail`` is durable. The caller holds the run's lock."""
        self.tail = tail
        if self.open_values is not None and not self.open_values.is_open:
            self.open_values = None

    def end(self) -> None:
        """The terminal frame is durable."""
        self.ended = True

    def reopen(self) -> None:
        """Withdraws the close, whose attempt was rolled back."""
        self.closed = False

    def repeat(self) -> None:
        """Opens a stream whose close a replay is to repeat, until then."""
        self.repeats = self.closed
        self.closed = self.ended = False
