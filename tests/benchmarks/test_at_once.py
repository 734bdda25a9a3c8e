"""How many bodies ran at once is counted from what they write down, in two workers of their own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.at_once import diary, most_at_once, two_workers

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path


@pytest.mark.parametrize(
    ("lines", "everything", "of_a_key"),
    [
        (["a 1 3", "a 2 4", "b 2.5 2.7"], 3, 2),
        (["a 1 2", "a 2 3", "b 3 4"], 1, 1),  # one ends where the next begins
        (["a 1 9", "b 2 9", "c 3 9", "a 9.5 10"], 3, 1),
    ],
)
def test_the_most_at_once_is_that_of_a_moment(
    tmp_path: Path, lines: list[str], everything: float, of_a_key: float
) -> None:
    written = tmp_path / "spans"
    written.write_text("".join(f"{line}\n" for line in lines))
    assert most_at_once(written) == {"all": everything, "key": of_a_key}


def test_bodies_of_two_processes_are_counted_together() -> None:
    """Three in each, which are over when it is ready."""
    with two_workers(run_three) as most:
        assert 3 <= most()["all"] <= 6
        assert 2 <= most()["key"] <= 4


def run_three(pipe: Connection, path: str) -> None:
    """Bodies of two keys, at once."""
    diary.keep(path)

    async def run() -> None:
        await asyncio.gather(*(diary.busy(key) for key in "aab"))

    asyncio.run(run())
    pipe.send("ready")


def test_two_workers_of_ours_keep_to_limits(database_url: str) -> None:
    """Ten at a time of what waits in a queue, and one of a partition."""
    command = [sys.executable, "-m", "benchmarks.measure", "ours", "queue_at_once", database_url, "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 1 < found["limited"] <= 10
    assert found["partitioned"] == 1
