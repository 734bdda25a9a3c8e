"""What really happened: a file that steps of any process append a line to, and that no crash takes a line from.

A line is one ``write`` to a file opened for appending, so it is there whole or not at all, also when its process is
killed right after. Where the file is, an environment variable says: programs inherit it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "DBOSFLOW_TEST_LEDGER"
CLOCK_VARIABLE = "DBOSFLOW_TEST_LEDGER_CLOCK"
"""Seconds by which the wall clock is ahead of the monotonic one: for processes whose own wall clock may be wrong."""


class Entry(NamedTuple):
    """One line: what happened, in which process, and when by ``now``."""

    what: Any
    pid: int
    at: float


def now() -> float:
    """The wall clock's time; where somebody has said so, by the monotonic clock, which all processes share."""
    ahead = os.environ.get(CLOCK_VARIABLE)
    return time.time() if ahead is None else time.monotonic() + float(ahead)


def note(what: object) -> None:
    """Appends one line; ``what`` is JSON."""
    line = json.dumps([what, os.getpid(), now()]) + "\n"
    descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def entries() -> list[Entry]:
    """All lines so far, oldest first."""
    path = Path(os.environ[VARIABLE])
    return [Entry(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def noted() -> list[Any]:
    """What happened so far, oldest first."""
    return [entry.what for entry in entries()]
