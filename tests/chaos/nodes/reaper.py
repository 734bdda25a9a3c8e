"""The reaper ends what a run has started when the run itself is killed.

``python -m tests.chaos.nodes.reaper NAME`` waits for the end of its input. If the run did not say goodbye before, it
ends all processes that carry the run's ``NAME`` in their environment or on their command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE = "DBOSFLOW_CHAOS_RUN"
_GOODBYE = b"goodbye"
_PATIENCE = 30.0


class Reaper:
    """A process that outlives this one for as long as it has something to end. ``root`` is the run's directory."""

    def __init__(self, root: Path) -> None:
        os.environ[_VARIABLE] = root.name  # what is started from now on inherits it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nodes.reaper", root.name],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )

    def close(self) -> None:
        """The run ends in an orderly way, and has itself ended what it started."""
        os.environ.pop(_VARIABLE, None)
        with suppress(BrokenPipeError):
            self._process.communicate(_GOODBYE, timeout=_PATIENCE)


def processes_of(name: str) -> Iterator[int]:
    """Those of the run of that name, but for this one."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            words = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
            if name.encode() in words and int(process.name) != os.getpid():
                yield int(process.name)


def main(name: str) -> None:
    """Waits, and ends what is left."""
    if sys.stdin.buffer.read() == _GOODBYE:
        return
    deadline = time.monotonic() + _PATIENCE
    while (found := [*processes_of(name)]) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)  # Postgres ends its other processes itself


if __name__ == "__main__":
    main(sys.argv[1])
