"""How long workflows whose owners were lost waited for the next ones, by their histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chaos.history.workflow_history import WorkflowHistory
    from tests.chaos.nemeses.nemesis import OwnerLoss


def takeovers(owner_losses: Sequence[OwnerLoss], history: WorkflowHistory) -> Iterator[tuple[str, float, float]]:
    """For each loss of this workflow's owner: why, seconds until its next pass elsewhere, and until its next row."""
    row = history.row
    rows = [(step["epoch"], step["recorded_at"]) for step in history.steps]
    rows += [(block["epoch"], block["created_at"]) for block in history.blocks]
    if row["ended_at"] is not None:
        rows.append((row["epoch"], row["ended_at"]))
    for loss in owner_losses:
        epoch = loss.owned.get(history.workflow_id)
        if epoch is None:
            continue
        passes = [
            line.at for line in history.lines if line.what == "pass" and line.at > loss.at and line.pid != loss.pid
        ]
        written = [at for of, at in rows if of > epoch and at > loss.at]
        if passes and written:
            yield loss.kind, min(passes) - loss.at, min(written) - loss.at
