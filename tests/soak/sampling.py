"""Measures the levels of a run: of each process by the kernel and by its own word, of the server by its catalogs."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.soak.series import Levels

_PAGE = os.sysconf("SC_PAGE_SIZE")

_SESSIONS: LiteralString = """
    SELECT application_name, count(*), count(*) FILTER (WHERE query LIKE 'LISTEN%') FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> 'looking'
    GROUP BY application_name"""
_TABLES = ("workflow", "step", "stream_block", "stream_trim", "worker")
_ROWS: LiteralString = """
    SELECT (SELECT count(*) FROM dbosflow.workflow), (SELECT count(*) FROM dbosflow.step),
           (SELECT count(*) FROM dbosflow.stream_block), (SELECT count(*) FROM dbosflow.stream_trim),
           (SELECT count(*) FROM dbosflow.worker), (SELECT count(*) FROM dbosflow.worker WHERE state = 'live')"""
_BYTES: LiteralString = """
    SELECT relname, pg_total_relation_size(oid) FROM pg_class
    WHERE relnamespace = 'dbosflow'::regnamespace AND relkind = 'r' AND relname = ANY(%s)"""


@dataclass(frozen=True)
class Member:
    """A process of the run, as it is now."""

    name: str
    """Of its role, which its successor takes over."""
    application: str
    """What its sessions are called."""
    pid: int
    reported: Mapping[str, int]
    """What it last reported of itself."""


class Sampler:
    """Takes samples; a member whose process is another one than before begins anew."""

    def __init__(self, levels: Levels, url: str, members: Callable[[], Iterable[Member]]) -> None:
        self._levels = levels
        self._url = url
        self._members = members
        self._pids: dict[str, int] = {}

    def sample(self, at: float) -> None:
        """One sample of everything; while the database is down, of the processes."""
        members = [*self._members()]
        for member in members:
            if self._pids.setdefault(member.name, member.pid) != member.pid:
                self._pids[member.name] = member.pid
                self._levels.begin_anew(member.name, at)
            for what, value in {**measure(member.pid), **member.reported}.items():
                self._levels.add(what, member.name, at, value)
        try:
            self._sample_server(at, members)
        except psycopg.OperationalError:  # the database is down: part of the plan
            return

    def _sample_server(self, at: float, members: list[Member]) -> None:
        with psycopg.connect(self._url, autocommit=True, application_name="looking", connect_timeout=2) as connection:
            sessions = {name: counts for name, *counts in connection.execute(_SESSIONS)}
            rows = connection.execute(_ROWS).fetchone()
            sizes: dict[str, int] = dict(connection.execute(_BYTES, ([*_TABLES],)).fetchall())
        for member in members:
            connections, listening = sessions.get(member.application, (0, 0))
            self._levels.add("connections", member.name, at, connections)
            self._levels.add("listening", member.name, at, listening)
        assert rows
        *counts, live = rows
        for table, count in zip(_TABLES, counts, strict=True):
            self._levels.add("workers" if table == "worker" else "rows", table, at, count)
            self._levels.add("table bytes", table, at, sizes[table])
        self._levels.add("workers", "live", at, live)


def measure(pid: int) -> dict[str, int]:
    """What the kernel knows of a process; nothing, if it has ended."""
    process = Path("/proc") / str(pid)
    try:
        resident = int((process / "statm").read_text().split()[1]) * _PAGE
        threads = len([*(process / "task").iterdir()])
        descriptors = len([*(process / "fd").iterdir()])
    except OSError:
        return {}
    return {"memory": resident, "threads": threads, "descriptors": descriptors}


def own_levels(loop: asyncio.AbstractEventLoop) -> dict[str, int]:
    """What a process of another kind says of itself."""
    return {"tasks": len(asyncio.all_tasks(loop)), "blocks": sys.getallocatedblocks()}
