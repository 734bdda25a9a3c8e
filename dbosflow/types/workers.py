"""The record of a live worker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (the types of fields are looked up at run time)


@dataclass(frozen=True, slots=True)
class RunningWorkflow:
    """A workflow that a worker runs at this moment."""

    id: str
    name: str
    queue: str
    """Its queue; empty: it was started in a process."""
    started_at: datetime
    """When it began, perhaps on another worker."""
    age: float
    """The seconds since then."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A live worker: the lease of a process, by which it owns what it runs. Times are timezone-aware."""

    id: str
    """Of the lease: a process that has lost its lease takes another one."""
    host: str
    pid: int
    """Of its process, on that host."""
    version: str
    """Of dbosflow."""
    version_name: str | None
    """Of the code, in its user's words; ``None``: it carries none."""
    queues: tuple[str, ...]
    """The queues that it serves. One without any runs what is started in its process, and what such processes left."""
    started_at: datetime
    """When it took the lease."""
    silent: float
    """The seconds since it has renewed the lease."""
    lease: float
    """The seconds without a renewal after which others take over what it runs."""
    running: tuple[RunningWorkflow, ...]
    """What it runs, the oldest first."""
