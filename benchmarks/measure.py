"""The process of one measurement: ``python -m benchmarks.measure CONTENDER SCENARIO URL SIZE``.

Each contender has the thresholds of the garbage collector that ``dbosflow worker`` sets, and nothing else of it. A
measurement prints its figures as JSON on its last line. Whatever it leaves behind or leaks ends with it. It is also what to
profile: after ``prepare`` as the scenario of an empty database, ``py-spy record --subprocesses -- python -m
benchmarks.measure ours steps_1000 URL 50000`` shows where the time of one row goes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from benchmarks.job import Job
from dbosflow.cli.worker import collect_seldom

if TYPE_CHECKING:
    from benchmarks.job import Contender


def contender(name: str) -> Contender:
    """The one in that module; ``ImportError`` if what it needs is not installed."""
    found: Contender = importlib.import_module(f"benchmarks.{name}").CONTENDER
    return found


def _end_with_the_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)  # and the processes that this one has started


def main() -> None:
    """``prepare`` as the scenario makes the contender's tables instead."""
    name, scenario, url, size = sys.argv[1:]
    if os.getsid(0) == os.getpid():  # started for one round, with a pipe that ends when nobody is there to report to
        threading.Thread(target=_end_with_the_starter, daemon=True).start()
    one = contender(name)
    collect_seldom()
    if scenario == "prepare":
        one.prepare(url)
        print("{}", flush=True)
    else:
        print(json.dumps(one.scenarios[scenario](Job(url, int(size)))), flush=True)
    # Threads that a contender leaves must not hold up the next one.
    os._exit(0)


if __name__ == "__main__":
    main()
