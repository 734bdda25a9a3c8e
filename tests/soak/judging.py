"""Whether a level stayed level: its rise over a run against a bound, by medians, so that faults do not look like leaks.

The time after the warm-up is cut into windows, and each is its median: an outage, a restart of the server or a garbage
collection moves few of them. Their slope is Theil and Sen's, the median of the slopes of all pairs: nearly a third of
the windows may be anything. It is a leak if the rise by that slope, over the time that was judged, is more than the
bound allows, and most pairs rise (Kendall's tau): a level that wanders up and down has no direction. The bound is for
the whole time and not for each minute, so a longer run sees a slower leak.

Some levels go with the work that is done: the rows that are kept for a while, and what is known of them. Where the pace
rose, as on a machine that others have left, they may rise in the same proportion, and by their bound besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.soak.series import Levels, Point, Series

PACE = "pace"
"""The level that says how fast the work goes."""
WINDOWS = 16
_FEWEST = 10
"""So many windows must hold a value; else there is too little to judge by."""
_DIRECTION = 0.5
"""Kendall's tau from which on a level has a direction: with that many windows, noise has one in a thousand runs."""
_LEAST_SECONDS = 100.0
"""A run whose judged time is shorter says nothing of slopes."""


@dataclass(frozen=True)
class Bound:
    """How far a level may rise in a run: by so much, and by so much of itself."""

    rise: float
    share: float = 0.0
    unit: str = ""
    scale: float = 1.0
    """What a value is divided by for people."""
    paced: bool = False
    """Whether it goes with the pace."""


BOUNDS = {
    "memory": Bound(8e6, 0.05, "MB", 1e6),
    "blocks": Bound(20_000, 0.05, "blocks", paced=True),
    "threads": Bound(8),
    "descriptors": Bound(6),
    "tasks": Bound(20, 0.1),
    "connections": Bound(2),
    "listening": Bound(1),
    "rows": Bound(2_000, 0.3, paced=True),
    "table bytes": Bound(16e6, 0.3, "MB", 1e6, paced=True),
    "workers": Bound(4, 0.3),
    "start to end": Bound(0.2, 0.5, "ms", 1e-3),
    "stream latency": Bound(0.1, 0.5, "ms", 1e-3),
}
"""What is judged, and what its bound is. Of latencies it is the median."""


def warm_up(seconds: float) -> float:
    """How much of a run does not count: until caches are full, rows are removed as fast as they come, and so on."""
    return min(max(90.0, seconds / 4), 900.0)


def can_judge(seconds: float) -> bool:
    """Whether a run is long enough for slopes."""
    return seconds - warm_up(seconds) >= _LEAST_SECONDS


def judge(levels: Levels, seconds: float) -> Iterator[str]:
    """What has not stayed level in a run of so many seconds; of a short one nothing can be said."""
    if not can_judge(seconds):
        return
    begin = warm_up(seconds)

    def judged(series: Series) -> list[Point]:
        return [point for point in series.points if begin <= point[0] <= seconds]

    faster = max([0.0, *(_growth(judged(series)) for series in levels.of(PACE).values())])
    for what, whose, series in levels:
        bound = BOUNDS.get(what)
        if bound is not None and series.since <= begin:  # else it was replaced meanwhile, and its level begins anew
            complaint = leak(judged(series), bound, faster if bound.paced else 0.0)
            if complaint is not None:
                yield f"{what} of {whose}: {complaint}"


def leak(points: Sequence[Point], bound: Bound, faster: float = 0.0) -> str | None:
    """What is to be said against the slope of a level; ``None`` if it is level, or nobody can tell.

    ``faster`` is by which part of what it was the pace has risen that it goes with.
    """
    windows = medians(points)
    if len(windows) < _FEWEST:
        return None
    pairs = [*combinations(windows, 2)]
    direction = sum((later[1] > earlier[1]) - (later[1] < earlier[1]) for earlier, later in pairs) / len(pairs)
    seconds = windows[-1][0] - windows[0][0]
    level, rise = median(value for _, value in windows), _slope(windows) * seconds
    allowed = bound.rise + bound.share * abs(level) + faster * abs(level - rise / 2)
    if rise <= allowed or direction < _DIRECTION:
        return None
    first, last = windows[0][1] / bound.scale, windows[-1][1] / bound.scale
    return (
        f"rises by {rise / seconds * 60 / bound.scale:.3g} {bound.unit} a minute, from {first:.4g} to {last:.4g}"
        f" {bound.unit} in {seconds:.0f} s; allowed are {allowed / bound.scale:.3g}"
    )


def _growth(points: Sequence[Point]) -> float:
    """By which part of what it was a level has risen."""
    windows = medians(points)
    if len(windows) < _FEWEST:
        return 0.0
    rise = _slope(windows) * (windows[-1][0] - windows[0][0])
    first = median(value for _, value in windows) - rise / 2
    return rise / first if first > 0 else 0.0


def _slope(windows: Sequence[Point]) -> float:
    pairs = combinations(windows, 2)
    return median((later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairs)


def medians(points: Sequence[Point]) -> list[Point]:
    """The middle and the median of each window that holds a value."""
    if not points:
        return []
    begin, width = points[0][0], (points[-1][0] - points[0][0]) / WINDOWS
    windows: dict[int, list[float]] = {}
    for at, value in points:
        number = min(int((at - begin) / width), WINDOWS - 1) if width else 0
        windows.setdefault(number, []).append(value)
    return [(begin + (number + 0.5) * width, median(values)) for number, values in sorted(windows.items())]
