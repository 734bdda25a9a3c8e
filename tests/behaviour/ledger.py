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


class Entry(NamedTuple):
    """One line: what happened, in which process, and when by the wall clock."""

    what: Any
    pid: int
    at: float


def note(what: object) -> None:
    """Appends one line; ``what`` is JSON."""
    line = json.dumps([what, os.getpid(), time.time()]) + "\n"
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
