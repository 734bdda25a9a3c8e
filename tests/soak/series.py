"""What is measured through a run: points of time and value, of which no more are kept than a picture can show."""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 1000

Point = tuple[float, float]
"""Seconds into the run, and a value."""


class Series:
    """The values of one level. When there are too many, every other one goes, and from then on fewer are taken."""

    def __init__(self) -> None:
        self._times = array("d")
        self._values = array("d")
        self.since = 0.0
        """When whatever has this level began: what was before was another one's."""
        self._stride = 1
        self._skipped = 0

    def add(self, at: float, value: float) -> None:
        """One more value."""
        self._skipped += 1
        if self._skipped < self._stride:
            return
        self._skipped = 0
        self._times.append(at)
        self._values.append(value)
        if len(self._times) > MOST:
            self._times, self._values = self._times[::2], self._values[::2]
            self._stride *= 2

    @property
    def points(self) -> list[Point]:
        """All that is kept, in the order of time."""
        return [*zip(self._times, self._values, strict=True)]

    @property
    def last(self) -> float:
        """The latest value; 0 if there is none."""
        return self._values[-1] if self._values else 0.0

    def begin_anew(self, at: float) -> None:
        """What has this level was replaced by another one."""
        self.since = at


class Levels:
    """All series, by what is measured and whose it is."""

    def __init__(self) -> None:
        self._series: dict[str, dict[str, Series]] = defaultdict(lambda: defaultdict(Series))

    def add(self, what: str, whose: str, at: float, value: float) -> None:
        """One more value of a level."""
        self._series[what][whose].add(at, value)

    def begin_anew(self, whose: str, at: float) -> None:
        """A process was replaced by another one."""
        for of in self._series.values():
            if whose in of:
                of[whose].begin_anew(at)

    def of(self, what: str) -> dict[str, Series]:
        """Whose levels of a kind there are."""
        return dict(self._series[what])

    def last(self, what: str, whose: str) -> float:
        """The latest value; 0 if there is none."""
        series = self.of(what).get(whose)
        return series.last if series else 0.0

    def __iter__(self) -> Iterator[tuple[str, str, Series]]:
        return ((what, whose, series) for what, of in self._series.items() for whose, series in of.items())
