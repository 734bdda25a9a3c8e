"""The record of a queue."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (the types of fields are looked up at run time)
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 (the types of fields are looked up at run time)


@dataclass(frozen=True, slots=True)
class Rate:
    """How many workflows of a queue may begin in a time: ``Rate(1000, per=60)``. One of several units counts as many.

    Each begins an even share of the time after the one before, on average; if less has begun before, up to ``burst`` of
    them begin at once. So in ``t`` seconds no more begin than ``burst + count * t / per``.
    """

    count: int
    """How many begin in ``per`` seconds, over a longer time."""
    per: float
    """The time in seconds: a microsecond or more."""
    burst: int | None = None
    """How many may begin at once; ``None``: ``count``. All of them must be able to begin within a hundred years."""
    bucket: str | None = None
    """The name of a bucket, which all queues share whose rate has it; ``None``: the queue has this rate for itself."""


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """The limits of a queue, and what it holds at this moment. Times are timezone-aware."""

    name: str
    limited: bool = False
    """Whether it has a row of its own: it has limits or partitions, or had a pause."""
    concurrency: int | None = None
    """How many of its workflows may run at a time, in all workers; ``None``: any number."""
    worker_concurrency: int | None = None
    """How many of them may run at a time in each worker; ``None``: as many as the worker has slots for."""
    partition_concurrency: int | None = None
    """How many workflows of each partition may run at a time, in all workers; ``None``: any number."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """How many workflows of a partition have their turn at once, where that is not one."""
    paused: bool = False
    """Whether nothing of it begins: it is paused, or the bucket of its rate."""
    paused_until: datetime | None = None
    """When the pause ends by itself."""
    waiting: int = 0
    """The number of workflows that wait in it."""
    running: int = 0
    """The number of its workflows that run."""
    oldest: datetime | None = None
    """When the oldest of those that wait was started."""
    oldest_age: float | None = None
    """Its age in seconds."""
    rate: Rate | None = None
    """How many of its workflows may begin in a time; ``None``: any number."""
    partition_rate: Rate | None = None
    """How many workflows of each partition may begin in a time; ``None``: any number."""
