"""Checks the limit of a queue: no process is ever inside more bodies of it at once than it allows, at any instant."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.history.ledger_reader import Line
    from tests.chaos.nodes.workers import Frozen


STARTED = "started"
"""What a worker process notes when it begins."""


@dataclass
class QueueLimitChecker:
    """Follows the ledger: who enters and leaves a body, and which process begins.

    A body notes that it enters after it has begun and that it leaves before it has ended, so what is counted here was
    at once for certain. A freeze outlasts the lease: what was inside then belongs to others, and nobody can keep it
    from going on for a moment when the process thaws, so it is counted up to the thaw. Two passes of one workflow, the
    one stopped and on its way out, count once.
    """

    limit: int
    frozen: Sequence[Frozen]
    peak: int = 0
    """The most that were ever inside one process: a limit that was never reached was not tested."""
    violations: list[str] = field(default_factory=list)
    _inside: dict[int, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    """By process: each body, and since when."""

    def follow(self, workflow_id: str, line: Line) -> None:
        """One line."""
        inside = self._inside[line.pid]
        if line.what == STARTED:  # a process, which may have the id of one that was killed
            inside.clear()
        elif line.what == "enter":
            inside.append((workflow_id, line.at))
            self._count(line)
        elif line.what == "leave":
            entered = next((body for body in inside if body[0] == workflow_id), None)
            if entered is not None:
                inside.remove(entered)

    def _count(self, line: Line) -> None:
        thawed = [one for one in self.frozen if one.pid == line.pid and one.until <= line.at]
        since = max((one.since for one in thawed), default=0.0)
        inside = {workflow_id for workflow_id, at in self._inside[line.pid] if at >= since}
        self.peak = max(self.peak, len(inside))
        if len(inside) > self.limit:
            self.violations.append(
                f"process {line.pid} ran {len(inside)} workflows of a queue of {self.limit} at once: {sorted(inside)}"
            )
