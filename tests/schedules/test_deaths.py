"""Schedulers that are killed around their statement, while others race them: no tick is lost or doubled."""

from __future__ import annotations

import itertools
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.cli.shell import Shell
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TICKING = """
from dbosflow import schedule, workflow

@schedule("ticking", every=1, queue="nobody's")
@workflow
def ticking() -> None:
    pass
"""

PROGRAM = """
import asyncio
import os
import sys

import ticking
from dbosflow import Engine
from dbosflow._runtime.schedules.scheduler import Scheduler
from dbosflow._store import schedule

point, turn = sys.argv[1], int(sys.argv[2])
look, tick, seen = schedule.look, schedule.tick, 0


def die() -> None:
    os.kill(os.getpid(), 9)


async def looking(*args, **values):
    rows = await look(*args, **values)
    if rows and point == "looked" and seen >= turn:
        die()
    return rows


async def ticks(connection, *args, **values):
    global seen
    seen += 1
    if seen < turn or point == "never":
        return await tick(connection, *args, **values)
    if point == "before":
        die()
    if point.startswith("sent"):  # the server has the statement, or what has arrived of it; nobody hears the answer
        sending = asyncio.ensure_future(tick(connection, *args, **values))
        await asyncio.sleep(float(point[4:]) / 1000)
        die()
    await tick(connection, *args, **values)
    die()


async def main() -> None:
    schedule.look, schedule.tick = looking, ticks
    async with Engine():
        print("open", flush=True)
        await asyncio.sleep(3600)


asyncio.run(main())
"""

POINTS = ["looked", "before", "sent0", "sent0.5", "sent1", "sent2", "after"]


@pytest.fixture
def shell(tmp_path: Path, database_url: str) -> Iterator[Shell]:
    """A directory for programs, with a database."""
    shell = Shell(tmp_path)
    shell.use(database_url)
    shell.write("ticking.py", TICKING)
    shell.write("program.py", PROGRAM)
    yield shell
    shell.close()


def started(url: str) -> list[datetime]:
    """The ticks that have started a workflow, in their order."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT id FROM dbosflow.workflow ORDER BY id").fetchall()
    return [datetime.fromisoformat(row[0].partition("@")[2]).astimezone(UTC) for row in rows]


def test_no_tick_is_lost_or_doubled_by_schedulers_that_die(shell: Shell, database_url: str) -> None:
    """Seven processes race, and each dies at a point of its own; so does their offspring; one is never killed."""
    survivor = shell.python("program.py", "never", "0")
    survivor.await_line("open")
    for turn in (1, 2):
        dying = [shell.python("program.py", point, str(turn)) for point in POINTS]
        for one in dying:
            assert one.end().status == -signal.SIGKILL
    count = len(started(database_url))
    eventually(lambda: len(started(database_url)) >= count + 2)
    ticks = started(database_url)
    assert {later - earlier for earlier, later in itertools.pairwise(ticks)} == {timedelta(seconds=1)}
    with psycopg.connect(database_url) as connection:
        (row,) = connection.execute("SELECT missed, last_at FROM dbosflow.schedule").fetchall()
    assert row[0] == 0
    assert row[1] >= ticks[-1]
