"""What attempts of steps have written to streams and may still be rolled back.

Values of an attempt are live at once. They are *committed* by the record of the step's success that names the attempt,
and *rolled back* by an appended ``rollback`` frame, which names the offset ranges, in the transaction that records the
failure, cancels the step, begins the next attempt, or ends the workflow. Until then they are *uncommitted*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._records.keys import is_item_of, step_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbosflow._runtime.runs.entries import Close

RangeList = list[tuple[int, int]]
"""Offsets, each range from its first to the one after its last."""


class Uncommitted:
    """The uncommitted writes of one run, by producer and stream key, with their offsets."""

    def __init__(self, written: Iterable[tuple[str, str, int, int]] = ()) -> None:
        self._written: dict[str, dict[str, RangeList]] = {}
        self.held_closes: dict[str, Close] = {}
        """Ends of streams that wait until the attempts' values in them are committed or rolled back."""
        for producer, key, offset, count in written:
            self.wrote(producer, key, offset, count)

    def copy(self) -> Uncommitted:
        """A copy to work on."""
        copied = Uncommitted()
        if self._written:
            copied._written = {
                producer: {key: list(ranges) for key, ranges in keys.items()}
                for producer, keys in self._written.items()
            }
        if self.held_closes:
            copied.held_closes = dict(self.held_closes)
        return copied

    def __bool__(self) -> bool:
        return bool(self._written)

    def wrote(self, producer: str, key: str, offset: int, count: int) -> None:
        """Notes the offsets of an attempt's block; a block of no values is a request to close the stream."""
        ranges = self._written.setdefault(producer, {}).setdefault(key, [])
        if ranges and ranges[-1][1] == offset:
            ranges[-1] = (ranges[-1][0], offset + count)
        elif count:
            ranges.append((offset, offset + count))

    def holds(self, key: str) -> bool:
        """Whether the stream ``key`` has uncommitted values."""
        return any(key in keys for keys in self._written.values())

    def producers(self, step_key: str | None = None) -> list[str]:
        """The producers with uncommitted writes, of one step or of all."""
        return [one for one in self._written if step_key is None or step_of(one) == step_key]

    def items_of(self, loop_key: str) -> list[str]:
        """The producers with uncommitted writes that are attempts of a loop's items."""
        return [one for one in self._written if is_item_of(step_of(one), loop_key)]

    def pop(self, producer: str) -> Iterator[tuple[str, RangeList]]:
        """Removes a producer; returns the streams that it wrote to, and the offsets."""
        yield from self._written.pop(producer, {}).items()
