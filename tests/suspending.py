"""An engine on which whatever waits leaves memory as soon as it can, however long its replay takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._runtime.execution import suspended_runs, suspender

if TYPE_CHECKING:
    import pytest

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.entries import Suspension

AT_ONCE = 1e-4
"""The setting ``suspend_after`` of such an engine."""


def suspend_at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets runs go that have only waited for ``AT_ONCE``; the ids of those that have gone, in order."""
    gone: list[str] = []
    is_durable = suspended_runs.SuspendedRuns.is_durable

    def noting(self: suspended_runs.SuspendedRuns, run: Run, suspension: Suspension) -> None:
        gone.append(run.workflow_id)
        is_durable(self, run, suspension)

    monkeypatch.setattr(suspender, "REPLAYS", 0.0)
    monkeypatch.setattr(suspender, "_SHORTEST", AT_ONCE)
    monkeypatch.setattr(suspended_runs.SuspendedRuns, "is_durable", noting)
    return gone
