"""What grows, how far, and which operations are watched meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.growth import fill

if TYPE_CHECKING:
    from collections.abc import Callable

FLAT = 1.5
"""At most so many times as slow at the largest size as at the smallest: an index has one or two levels more."""


@dataclass(frozen=True)
class Dimension:
    """``workers``: it is the worker processes that grow, not the tables."""

    title: str
    sizes: tuple[int, ...]
    fill: Callable[[str, int], None]
    operations: tuple[str, ...]
    workers: bool = False


_EVERYDAY = ("a step", "a stream value", "start to result", "an enqueue")


def dimensions(rows: int) -> dict[str, Dimension]:
    """All of them; tables grow to ``rows``, or to a million where that is plenty."""
    sizes = (*(size for size in (10_000, 100_000, 1_000_000, 10_000_000) if size < rows), rows)
    to_a_million = tuple(dict.fromkeys(min(size, 1_000_000) for size in sizes))
    return {
        "finished": Dimension(
            "finished workflows, each with a stream",
            sizes,
            fill.finished_workflows,
            (*_EVERYDAY, "a claim, run and end", "a page of a stream", "a listing"),
        ),
        "queued": Dimension(
            "workflows that wait in a queue", to_a_million, fill.queued_workflows, (*_EVERYDAY, "a claim, run and end")
        ),
        "stream": Dimension(
            "blocks of a stream",
            to_a_million,
            fill.long_stream,
            ("the first page", "the last page", "a value from outside"),
        ),
        "workers": Dimension("idle worker processes", (1, 4, 12), fill.nothing, _EVERYDAY, workers=True),
    }
