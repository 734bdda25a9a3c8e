"""The report of a run: its figures, and the violations that the checkers found."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.checkers.workers import Pace

_SHOWN = 40
_KEPT = 2000


@dataclass
class DurationSample:
    """A sample of durations, each kept with the same chance, however many there are."""

    count: int = 0
    largest: float = 0.0
    _kept: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.largest = max(self.largest, seconds)
        if len(self._kept) < _KEPT:
            self._kept.append(seconds)
        elif (place := random.randrange(self.count)) < _KEPT:
            self._kept[place] = seconds

    def __str__(self) -> str:
        if not self._kept:
            return "-"
        ordered = sorted(self._kept)
        high = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        median = ordered[len(ordered) // 2]
        return f"median {median:.3f} s, p99 {high:.3f} s, max {self.largest:.3f} s (n={self.count})"


@dataclass
class Report:
    """The figures of a run, and what was wrong."""

    seconds: float = 0.0
    acknowledged: int = 0
    workflows: Counter[str] = field(default_factory=Counter)
    """All of the database, children too, by status."""
    records: int = 0
    frames: int = 0
    items: int = 0
    """Of loops."""
    written: int = 0
    """Answers that outside writers got, for each value at least one."""
    readings: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    """Readers that were told that what they came to is gone."""
    trims: int = 0
    pruned: int = 0
    queue_peak: int = 0
    """The most workflows of the limited queue that were ever inside one process."""
    faults: Counter[str] = field(default_factory=Counter)
    running_again: dict[str, DurationSample] = field(default_factory=lambda: defaultdict(DurationSample))
    written_again: dict[str, DurationSample] = field(default_factory=lambda: defaultdict(DurationSample))
    drain: float | None = None
    worker_drains: DurationSample = field(default_factory=DurationSample)
    cancels: DurationSample = field(default_factory=DurationSample)
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
            f"written to inputs: {self.written}; handled by loops: {self.items}",
            f"the most workflows of the limited queue in a process at once: {self.queue_peak}",
            f"removed meanwhile: {self.pruned} workflows, and the beginnings of streams {self.trims} times",
            f"faults: {sum(self.faults.values())}: {_counts(self.faults)}",
            f"streams read: {_counts(self.readings)}; told that the beginning is gone: {self.truncated}",
            f"samples of the database: {self.samples}",
        ]
        for kind in sorted(self.running_again):
            lines.append(f"taken over after {kind}: running again {self.running_again[kind]}")
            lines.append(f"{'':17}{' ' * len(kind)}next row      {self.written_again[kind]}")
        lines.append(f"cancel() until its caller sees the end: {self.cancels}")
        lines.append(f"a worker's stop after SIGTERM: {self.worker_drains}")
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
