"""What came of a run, for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.oracles_workers import Pace

_SHOWN = 40


@dataclass
class Report:
    """The figures of a run, and what was wrong."""

    seconds: float = 0.0
    acknowledged: int = 0
    workflows: Counter[str] = field(default_factory=Counter)
    """All of the database, children too, by status."""
    records: int = 0
    frames: int = 0
    readings: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    running_again: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    written_again: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    drain: float | None = None
    worker_drains: list[float] = field(default_factory=list)
    cancels: list[float] = field(default_factory=list)
    tried_again: Counter[str] = field(default_factory=Counter)
    failed_opens: int = 0
    samples: int = 0
    pace: Pace | None = None
    figures: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.seconds:.0f} s; {self.acknowledged} workflows started and acknowledged",
            f"at the end: {_counts(self.workflows)}; {self.records} records, {self.frames} stream values",
            f"faults: {sum(self.faults.values())}: {_counts(self.faults)}",
            f"streams read: {_counts(self.readings)}; samples of the database: {self.samples}",
        ]
        for kind in sorted(self.running_again):
            lines.append(f"taken over after {kind}: running again {spread(self.running_again[kind])}")
            lines.append(f"{'':17}{' ' * len(kind)}next row      {spread(self.written_again[kind])}")
        lines.append(f"cancel() until its caller sees the end: {spread(self.cancels)}")
        lines.append(f"a worker's stop after SIGTERM: {spread(self.worker_drains)}")
        lines.append(
            f"callers tried again: {_counts(self.tried_again)}; workers that could not open: {self.failed_opens}"
        )
        lines += [f"with a snapshot {self.pace}"] if self.pace and self.pace.seconds else []
        lines += self.figures
        drained = "never" if self.drain is None else f"{self.drain:.1f} s"
        lines.append(f"after the last fault all was done within: {drained}")
        lines.append("no violation" if not self.violations else f"{len(self.violations)} VIOLATIONS")
        lines += [f"  {violation}" for violation in self.violations[:_SHOWN]]
        if len(self.violations) > _SHOWN:
            lines.append(f"  and {len(self.violations) - _SHOWN} more")
        return "\n".join(lines)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


def spread(times: Sequence[float]) -> str:
    """Median, 99th percentile and longest of some durations."""
    if not times:
        return "-"
    ordered = sorted(times)
    high = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"median {ordered[len(ordered) // 2]:.3f} s, p99 {high:.3f} s, max {ordered[-1]:.3f} s (n={len(ordered)})"
