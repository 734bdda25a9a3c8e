"""The offsets of a stream that a run is done with: a watermark, and those behind it."""

from __future__ import annotations

from dbosflow._store.carried import ReadPlace


class Offsets:
    """Grows by offsets in any order; holds those behind the first gap one by one."""

    __slots__ = ("_beyond", "_first", "_trimmed")

    def __init__(self, place: ReadPlace) -> None:
        self._first, self._beyond, self._trimmed = place.next, {*place.beyond}, place.trimmed
        self._advance()

    def add(self, offset: int) -> None:
        """The offset is done with."""
        self._beyond.add(offset)
        self._advance()

    def _advance(self) -> None:
        while self._first in self._beyond:
            self._beyond.discard(self._first)
            self._first += 1

    def place(self, trimmed: int | None = None) -> ReadPlace:
        """What is done with; before ``trimmed`` all is removed, if that is known."""
        beyond = tuple(sorted(offset for offset in self._beyond if offset > self._first))
        return ReadPlace(self._first, beyond, self._trimmed if trimmed is None else trimmed)
