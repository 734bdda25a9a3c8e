"""What a measurement is asked, and what it answers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Figures = dict[str, float]
"""A measurement's answer: the rows' figures by name, and counts of the meter."""


@dataclass(frozen=True)
class Job:
    """One measurement: on this database, with this much work (what is counted depends on the scenario)."""

    url: str
    size: int


Scenario = Callable[[Job], Figures]


@dataclass(frozen=True)
class Contender:
    """One of those that are compared: it makes its tables in an empty database, and knows some of the scenarios."""

    title: str
    prepare: Callable[[str], None]
    scenarios: dict[str, Scenario]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of them lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def delays(seconds: Sequence[float]) -> Figures:
    """The p50 and p99 of delays, in milliseconds."""
    return {"p50": statistics.median(seconds) * 1e3, "p99": percentile(seconds, 0.99) * 1e3}
