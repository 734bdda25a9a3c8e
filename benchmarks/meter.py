"""What a piece of work takes: seconds, and what is stable where seconds are noisy: WAL, commits, CPU.

Commits are counted as the transactions that got an id, those that wrote: the counter is exact and knows no delay, which
the statistics views do not promise. The CPU of the server is that of the backends that are there when the work ends;
it is left out where ``/proc`` does not show them.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.job import Figures

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Meter:
    """Filled in when its block ends."""

    seconds: float = 0.0
    wal: int = 0
    commits: int = 0
    client_cpu: float = 0.0
    server_cpu: float | None = None
    started: float = field(default_factory=time.monotonic)

    def rate(self, operations: int) -> Figures:
        """Operations per second, and what one of them takes."""
        return {"rate": operations / self.seconds} | self.costs(operations)

    def costs(self, operations: int) -> Figures:
        """What one of so many operations takes; CPU in microseconds."""
        found = {
            "wal_bytes": self.wal / operations,
            "commits": self.commits / operations,
            "client_cpu_us": self.client_cpu / operations * 1e6,
        }
        return found if self.server_cpu is None else found | {"server_cpu_us": self.server_cpu / operations * 1e6}


@contextmanager
def metered(url: str) -> Iterator[Meter]:
    """Measures the block. Its own connection is idle meanwhile."""
    with psycopg.connect(url, autocommit=True) as connection:
        wal, commits, server = _counters(connection)
        client = _client_cpu()
        meter = Meter()
        yield meter
        meter.seconds = time.monotonic() - meter.started
        meter.client_cpu = _client_cpu() - client
        wal_after, commits_after, server_after = _counters(connection)
        meter.wal, meter.commits = wal_after - wal, commits_after - commits
        if server_after:
            meter.server_cpu = sum(cpu - server.get(pid, 0.0) for pid, cpu in server_after.items())


def _client_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _counters(connection: psycopg.Connection) -> tuple[int, int, dict[int, float]]:
    row = connection.execute(
        "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
        " ARRAY(SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid())"
    ).fetchone()
    assert row is not None
    wal, commits, pids = row
    return wal, commits, {pid: cpu for pid in pids if (cpu := _process_cpu(pid)) is not None}


def _process_cpu(pid: int) -> float | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:  # the server is elsewhere, or the backend has just gone
        return None
    # Behind the name, which may hold anything: user time and system time are the 12th and 13th words.
    words = text.rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS
