"""What ``engine.workflows.explain`` returns: a workflow's state with its causes, as data and in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (a field's type)
from typing import Literal

from dbosflow.types import WorkflowStatus  # noqa: TC001 (a field's type)

CauseCode = Literal[
    "ended",
    "blocked",
    "cancel-requested",
    "no-worker",
    "no-worker-of-queue",
    "unknown-name",
    "unknown-version",
    "suspect",
    "slot",
    "limit",
    "rate",
    "paused",
    "delay",
    "suspended",
    "unreadable",
    "dead-owner",
    "silent-owner",
    "running",
    "step",
    "retry",
    "timer",
    "timeout",
    "child",
    "workflow",
    "message",
    "answer",
    "stream",
    "deadline",
    "outbox",
]
"""The kinds of cause. New ones may be added."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that a workflow waits for, or that it does."""

    code: CauseCode
    workflow_id: str
    """The workflow that waits: the one that was asked for, or one that it waits for."""
    text: str
    """What it is, in words."""
    frees: str = ""
    """What would end the wait; empty if nothing is needed."""
    related: tuple[str, ...] = ()
    """The ids of the workflows that are waited for."""
    until: datetime | None = None
    """When the wait ends by itself, if that is known."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a workflow waits for, by what is stored. ``str(explanation)`` is the text for people.

    Where a workflow waits for others, their causes come before its own: the first one is the last in the chain.
    """

    workflow_id: str
    status: WorkflowStatus
    causes: tuple[Cause, ...]

    def __str__(self) -> str:
        lines = [f"workflow {self.workflow_id!r} is {self.status}"]
        for cause in self.causes:
            whose = "" if cause.workflow_id == self.workflow_id else f"{cause.workflow_id!r}: "
            lines.append(f"- {whose}{cause.text}{f'; {cause.frees}' if cause.frees else ''}")
        return "\n".join(lines)
