"""What many readers of one stream cost: transactions of the database a flush, those of a second reader included.

A flush is a commit, its notification, and what the readers fetch; each process that listens counts one transaction more,
in which its session takes the notification.

Each pair of processes runs until it has closed its connections, which is when all its transactions are in the
statistics; a pair with few values is subtracted from one with many, so that what opening and closing take is not in it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg

from benchmarks.halves import half

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Figures, Job

_INTERVAL = 0.02
_FEW = 10
_MANY_READERS = 200


def fanout_figures(job: Job, write: Callable[..., None], read: Callable[..., None]) -> Figures:
    """``write(pipe, url, values, interval)`` and ``read(pipe, url, readers)`` run in processes of their own."""
    found: Figures = {}
    for readers in (1, _MANY_READERS):
        few, many = (_transactions(job.url, values, readers, write, read) for values in (_FEW, _FEW + job.size))
        found[f"readers_{readers}"] = (many - few) / job.size
    return found | {"growth": found[f"readers_{_MANY_READERS}"] / max(found["readers_1"], 1e-9)}


def _transactions(url: str, values: int, readers: int, write: Callable[..., None], read: Callable[..., None]) -> int:
    before = _count(url)
    with ExitStack() as both:
        reader = both.enter_context(half(read, url, readers))
        writer = both.enter_context(half(write, url, values, _INTERVAL))
        reader.receive()
        writer.receive()
        workflow_id = f"fanout-{readers}-{values}"
        reader.send(workflow_id)
        writer.send(workflow_id)
        seen = reader.receive()
        assert seen == values * readers, f"{readers} readers saw {seen} of {values} values each"
    return _count(url) - before


def _count(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])
