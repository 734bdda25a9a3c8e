"""The request of a read, its items, and how far it has come: all immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from dbosflow._runtime.streams.hub import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow.errors import SerializationError
    from dbosflow.types import FrameKind, Rollback, StreamOutcome

T_co = TypeVar("T_co", covariant=True)

View = Literal["live", "committed", "raw"]
"""What a reader sees: values at once, and the rollbacks of some; only committed values; or every frame."""


class Loader(Protocol[T_co]):
    """What a reader makes of JSON text: a codec of its type, for example."""

    def load(self, text: str) -> T_co:
        """The value of the text."""


@dataclass(frozen=True, slots=True)
class Item:
    """One value with its offset, or the rollback of some earlier ones, or the error that a value is not of the type."""

    value: Any
    offset: int
    rollback: Rollback | None = None
    error: SerializationError | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reader has read: the next offset, the rollbacks that it knew of, and the end if it has seen that."""

    next: int
    kind: FrameKind | None = None
    error: str | None = None
    known: int = 0
    """The offset after the last rollback that the reader knew of, which may lie far ahead."""
    start: int = 0
    """The offset at which the reader began, if it was not given."""
    unfit: str | None = None
    """Why the value at the next offset is not of the reader's type, if it is not."""


@dataclass(frozen=True, slots=True)
class Position:
    """What a cursor has fetched so far, and what it has learned from that.

    A cursor replaces its position as a whole, so an earlier position can be kept, and set again to read on from there.
    """

    next: int
    """The first offset that was not fetched."""
    start: int = 0
    """The offset at which the read began: earlier values count as received, or were not asked for."""
    is_placed: bool = True
    """Whether the start is known: a start that counts from the end is looked up first."""
    rollbacks: Mapping[int, bool] = field(default_factory=lambda: MappingProxyType({}))
    """The known rollbacks that are still ahead: whether they cover values that the reader has received."""
    known_rollbacks: int = 0
    """The offset after the last rollback that was ever known."""
    end: tuple[FrameKind | None, str | None] = (None, None)
    """The terminal frame, and its payload."""
    ending: StreamOutcome | None = None
    """What the terminal frame means to the reader."""
    unfit: str | None = None
    """Why the value at ``next`` is not of the reader's type."""
    status: SeenStatus = UNSEEN
    """The status of the workflow, when it was last read."""

    def progress(self) -> Progress:
        """What a workflow records of the position."""
        return Progress(self.next, *self.end, self.known_rollbacks, self.start, self.unfit)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What is to be read: a stream, from where to where, and how."""

    workflow_id: str
    key: str
    start: int | Literal["tail"] = 0
    until: int | None = None
    view: View = "live"
    timeout: float | None = None
    wait_for: float = 0.0
    codec: Loader[list[Any]] | None = None
    final: Loader[Any] | None = None

    @property
    def hides(self) -> bool:
        """Whether values that are rolled back are hidden from a reader that has not seen them."""
        return self.view != "raw"

    @property
    def stream(self) -> str:
        """The stream, in words."""
        return f"stream {self.key!r} of workflow {self.workflow_id!r}"

    def is_over_at(self, offset: int) -> bool:
        """Whether nothing more is wanted from this offset on."""
        return self.until is not None and offset >= self.until
