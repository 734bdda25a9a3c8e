"""The crash-point sweep: each scenario once for each durable record and each thing that can go wrong at it.

```text
python -m tests.proof.sweep [--scenario S] [--how H] [--sample N] [--seed 1] [--workers 2] [--deaths 2]
python -m tests.proof.sweep --forks [--scenario S] [--workers 2]
```

An undisturbed run of a scenario lists its points. Then for each: a process runs the scenario and dies there, before the
statement that carries the record is sent, with the statement on the wire, or after its commit; or only the connection
breaks. Another process recovers, and everything is compared. With ``--deaths 2`` that one dies at a random point, too.
With ``--forks`` each workflow is forked from each of its turns instead, and the same must come of each fork.
The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.proof.databases import databases
from tests.proof.forking import FORKED
from tests.proof.points import How
from tests.proof.scenarios import SCENARIOS
from tests.proof.sweeping import Sweep, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent.parent


def _work(options: argparse.Namespace) -> int:
    """Sweeps the scenarios that are named on one database; what came of it is the last line."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        sweep = Sweep(options.url, Path(directory), random.Random(options.seed))
        for name in options.scenario:
            if options.forks:
                if name in FORKED:
                    sweep.forks(name)
                continue
            sweep.scenario(name, [How(how) for how in options.how], options.sample, options.deaths)
    sweep.tally.seconds = time.monotonic() - began
    print(sweep.tally.as_json())
    return 1 if sweep.tally.violations else 0


def _share(options: argparse.Namespace) -> int:
    """Shares the scenarios out to processes of their own, each with a database of its own."""
    began = time.monotonic()
    total, waiting = Tally(), list(options.scenario)
    with databases(options.workers, options.database_url) as urls:
        busy: dict[str, tuple[str, subprocess.Popen[str]]] = {}
        while waiting or busy:
            for url in urls:
                if url not in busy and waiting:
                    name = waiting.pop(0)
                    busy[url] = name, _start(url, name, options)
            for url, (name, process) in tuple(busy.items()):
                if process.poll() is not None:
                    del busy[url]
                    _hear(name, process, total)
            time.sleep(0.05)
    _report(total, time.monotonic() - began)
    return 1 if total.violations else 0


def _start(url: str, name: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    arguments = ["--url", url, "--scenario", name, "--seed", str(options.seed), "--deaths", str(options.deaths)]
    arguments += [word for how in options.how for word in ("--how", how)]
    arguments += ["--sample", str(options.sample)] if options.sample is not None else []
    arguments += ["--forks"] if options.forks else []
    return subprocess.Popen(
        [sys.executable, "-m", "tests.proof.sweep", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _hear(name: str, process: subprocess.Popen[str], total: Tally) -> None:
    """The last line of one that has ended is its tally."""
    lines = process.communicate()[0].splitlines()
    if not lines:
        total.violations.append(f"{name}: the sweep itself ended with {process.returncode}")
        return
    found = json.loads(lines[-1])
    total.add(found)
    print(
        f"{name}: {found['points']} points, {sum(found['tried'].values())} runs, {len(found['missed'])} missed,"
        f" {len(found['violations'])} violations, {found['seconds']:.0f} s",
        flush=True,
    )


def _report(total: Tally, seconds: float) -> None:
    print(f"{total.points} points, {sum(total.tried.values())} runs {dict(total.tried)} in {seconds:.0f} s")
    reports: list[tuple[str, list[Any]]] = [
        ("missed", total.missed),
        ("slow", sorted(total.slow)),
        ("VIOLATIONS", total.violations),
    ]
    for title, lines in reports:
        if lines:
            print(f"{len(lines)} {title}:", *lines, sep="\n  ")
    if not total.violations:
        print("no violation")


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS], help="default: all")
    parser.add_argument("--how", action="append", choices=[*How], help="default: all")
    parser.add_argument("--sample", type=int, help="so many runs a scenario (default: one for each point and fault)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the sample, and of second deaths (default: %(default)s)"
    )
    parser.add_argument("--deaths", type=int, choices=[1, 2], default=1, help="of a run (default: %(default)s)")
    parser.add_argument("--forks", action="store_true", help="a fork from each turn instead of a fault at each point")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--database-url", help="a server to make databases on; default: an embedded one of its own")
    parser.add_argument("--url", help="sweep in this process, on this migrated database, which is emptied each time")
    options = parser.parse_args(arguments)
    options.scenario = options.scenario or [*SCENARIOS]
    options.how = options.how or [*How]
    return _work(options) if options.url else _share(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
