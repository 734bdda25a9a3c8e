"""The items of streams, what a stream is, and what a loop over one gives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (some of these go on record: pydantic looks the types up)
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


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
