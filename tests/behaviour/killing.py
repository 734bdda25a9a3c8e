"""A workflow whose workers are killed again and again, and a reader in another process that never notices.

```text
python -m tests.behaviour.killing --steps 1000 --values 10000 --kills 10
```

Two workers serve one queue; a workflow runs on one of them. At random moments its owner is killed (SIGKILL) and another
worker hired. At the end everything is compared: the result, one record for each step, offsets without a gap with the
right value at each, and what a reader in a process of its own saw, which stayed connected throughout. Prints a summary;
the exit status is 1 if anything differs. Needs no Postgres: without ``--database-url`` it makes an embedded one, which
goes with it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from tests.behaviour import ledger
from tests.behaviour.program import Program
from tests.behaviour.programs.marathon import held, marathon, value_at
from tests.behaviour.tables import disorder, records, rows, stored_values
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKFLOW_ID = "marathon"
QUEUE = "marathon"
PATIENCE = 120.0


@dataclass
class Summary:
    """What came of it."""

    steps: int
    values: int
    kills: int = 0
    seconds: float = 0.0
    bodies: int = 0
    """Step bodies that ran: one more for each that a kill interrupted before its record."""
    takeovers: list[float] = field(default_factory=list)
    """Seconds from each kill until another worker owns it; where both were dead, one had to start first."""
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        takeovers = sorted(self.takeovers) or [0.0]
        middle = takeovers[len(takeovers) // 2]
        return (
            f"{self.steps} steps, {self.values} values, {self.kills} kills in {self.seconds:.1f} s\n"
            f"step bodies run: {self.bodies} ({self.bodies - self.steps} more than steps)\n"
            f"taken over after: median {middle:.2f} s, longest {takeovers[-1]:.2f} s\n"
            + ("no fault" if not self.faults else "FAULTS\n  " + "\n  ".join(self.faults))
        )


class Killing:
    """One run of it."""

    def __init__(self, url: str, directory: Path, *, steps: int, values: int, kills: int) -> None:
        self._url = url
        self._directory = directory
        self._kills = kills
        self._programs = ExitStack()
        self._started = 0
        self.summary = Summary(steps, values)

    def run(self) -> Summary:
        """Runs the workflow to its end, kills its owners on the way, and compares."""
        summary = self.summary
        began = time.monotonic()
        with self._programs, Engine(self._url, executes=False) as client:
            reader = self._program("reader", id=WORKFLOW_ID, key="values", wait_for=PATIENCE, timeout=PATIENCE)
            workers = [self._worker() for _ in range(2)]
            for program in (reader, *workers):
                assert program.receive() == {"ready": True}
            handle = client.start(marathon.options(workflow_id=WORKFLOW_ID, queue=QUEUE), summary.steps, summary.values)
            self._kill_on_the_way(workers)
            draws = handle.result(timeout=PATIENCE)
            self._compare(draws, reader)
            if client.read_stream(WORKFLOW_ID, "values").read_all() != (self._expected(draws), True):
                summary.faults.append("a late reader sees something else")
        summary.seconds = time.monotonic() - began
        return summary

    def _kill_on_the_way(self, workers: list[Program]) -> None:
        """Kills the owner at so many random numbers of steps that are still to come."""
        held().touch()
        for goal in sorted(random.sample(range(1, self.summary.steps - 1), self._kills)):
            eventually(partial(self._has_come, goal), timeout=PATIENCE)
            time.sleep(random.uniform(0, 0.01))  # within a step, a commit, a takeover: wherever that is
            owner = eventually(lambda: self._owner(workers), timeout=PATIENCE)
            assert owner
            owner.kill()
            killed_at = time.monotonic()
            self.summary.kills += 1
            workers[workers.index(owner)] = self._worker()
            eventually(lambda: self._owner(workers), timeout=PATIENCE)
            self.summary.takeovers.append(time.monotonic() - killed_at)
        held().unlink()

    def _compare(self, draws: list[int], reader: Program) -> None:
        faults, steps, values = self.summary.faults, self.summary.steps, self.summary.values
        self.summary.bodies = len(ledger.entries())
        if len(draws) != steps:
            faults.append(f"the result holds {len(draws)} draws")
        recorded = dict(rows(self._url, "SELECT key, output FROM dbosflow.step WHERE workflow_id = %s", WORKFLOW_ID))
        if recorded != {f"drawn#{number}": draw for number, draw in enumerate(draws)}:
            faults.append("the records are not one for each step, with what it drew")
        if len(records(self._url, WORKFLOW_ID)) != steps:
            faults.append(f"there are {len(records(self._url, WORKFLOW_ID))} records")
        if self.summary.bodies > steps + self._kills:
            faults.append(f"{self.summary.bodies} step bodies ran")
        expected = list(enumerate(self._expected(draws)))
        stored = stored_values(self._url, WORKFLOW_ID, "values")
        if stored != expected:
            faults.append(f"the table holds something else: {_first_difference(stored, expected)}")
        received = [(offset, value) for offset, value in (reader.receive() for _ in range(values))]
        if received != expected:
            faults.append(f"the reader saw something else: {_first_difference(received, expected)}")
        if (end := reader.receive()) != {"end": values, "closed": True, "error": None}:
            faults.append(f"the reader's end was {end}")
        faults += disorder(self._url)

    def _expected(self, draws: list[int]) -> list[list[int]]:
        values, steps = self.summary.values, self.summary.steps
        found: list[list[int]] = []
        for number, draw in enumerate(draws):
            while len(found) < values * (number + 1) // steps:
                found.append(value_at(len(found), number, draw))
        return found

    def _has_come(self, goal: int) -> bool:
        """Whether so many steps have begun, each counted once."""
        return len(set(ledger.noted())) >= goal

    def _owner(self, workers: list[Program]) -> Program | None:
        query = (
            "SELECT k.pid FROM dbosflow.workflow w JOIN dbosflow.worker k ON k.id = w.worker_id WHERE k.state = 'live'"
        )
        pids = [pid for (pid,) in rows(self._url, query)]
        return next((worker for worker in workers if worker.pid in pids and worker.running), None)

    def _worker(self) -> Program:
        return self._program("worker", module="marathon", queues=[QUEUE])

    def _program(self, name: str, **options: Any) -> Program:
        self._started += 1
        log = self._directory / f"{name}-{self._started}.log"
        return self._programs.enter_context(Program(name, log, url=self._url, **options))


def _first_difference(found: list[Any], expected: list[Any]) -> str:
    pairs = zip(found, expected, strict=False)
    place = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
    return f"{len(found)} of {len(expected)}, the first difference at {place}: {found[place : place + 2]}"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.behaviour.killing", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--values", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="repeats the moments of another run, more or less")
    parser.add_argument("--database-url", help="an empty database; default: an embedded server of its own")
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    random.seed(seed)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as resources:
        os.environ[ledger.VARIABLE] = str(Path(directory) / "ledger")
        url = options.database_url or resources.enter_context(Engine.ephemeral(executes=False)).database_url
        killing = Killing(url, Path(directory), steps=options.steps, values=options.values, kills=options.kills)
        summary = killing.run()
        for log in sorted(Path(directory).glob("*.log")) if summary.faults else ():
            print(f"-- {log.name}\n{log.read_text()[-4000:]}", file=sys.stderr)
    print(f"seed {seed}\n{summary}")
    return 1 if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
