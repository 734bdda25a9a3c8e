"""Runs a scenario again and again, each time with something else that goes wrong, and compares."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from tests.behaviour import ledger
from tests.chaos.checkers.final_states import FinalStateMonitor
from tests.chaos.history.workflow_history import histories
from tests.proof.forked import said, scenario_process
from tests.proof.forking import LIMIT as FORKING
from tests.proof.forking import forking_process, wrong_forks
from tests.proof.injection import Trap
from tests.proof.observer import Observer
from tests.proof.points import How, Point
from tests.proof.verdict import Outcome, left_over, outcome, unnamed, violations

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path

SLOW = 3.0
DEADLY = [how for how in How if how.deadly]


class Undisturbed(NamedTuple):
    """What an undisturbed run made durable, what came of it, and its streams: id, key, an offset in the middle."""

    points: list[Point]
    outcome: Outcome
    streams: list[tuple[str, str, int]]


@dataclass
class Tally:
    """What a sweep has done so far."""

    points: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    """Points that a run did not come by: no fault, but nothing was tried either."""
    violations: list[str] = field(default_factory=list)
    slow: list[tuple[float, str]] = field(default_factory=list)
    """Runs that took long: something waited for a poll, or for a lease."""
    seconds: float = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Joins what another process has done."""
        self.points += other["points"]
        self.tried.update(other["tried"])
        self.missed += other["missed"]
        self.slow += other["slow"]
        self.violations += other["violations"]

    def as_json(self) -> str:
        """In a line."""
        return json.dumps(self.__dict__)


class Sweep:
    """Runs scenarios on one database, again and again."""

    def __init__(self, url: str, directory: Path, chance: random.Random) -> None:
        self._url = url
        self._directory = directory
        self._chance = chance
        self._runs = 0
        self.tally = Tally()

    def scenario(self, name: str, hows: Sequence[How], sample: int | None, deaths: int) -> None:
        """An undisturbed run, then one for each point, or for a sample of them, and for each thing that goes wrong."""
        with Observer(self._url, self._directory) as observer:
            right = self._undisturbed(name)
            self.tally.points += len(right.points)
            plan = [[Trap(point, how)] for point in right.points for how in hows]
            if sample is not None and sample < len(plan):
                plan = self._chance.sample(plan, sample)
            for traps in plan:
                if deaths > 1:
                    traps.append(Trap(self._chance.choice(right.points), self._chance.choice(DEADLY)))
                self._disturbed(name, traps, right, observer)

    def forks(self, name: str) -> None:
        """An undisturbed run, then a fork from each turn of its workflows; and the same with compacted streams."""
        for compacted in (False, True):
            run, title = self._new_run(), f"{name}, forked{', compacted' if compacted else ''}"
            status = forking_process(self._url, self._directory, name, run, compacted=compacted).end(FORKING)
            found = [f"its process ended with {status}"] if status else [*wrong_forks(self._url, run)]
            self.tally.tried["forked"] += len([line for line in said(self._directory / "ends") if "-" in line[0]])
            if found:
                self.tally.violations += [f"{title}: {what}" for what in found]
                print(f"{title}\n" + "\n".join(found) + f"\n{self._log()}", file=sys.stderr, flush=True)

    def _undisturbed(self, name: str) -> Undisturbed:
        run = self._new_run()
        process = scenario_process(self._url, self._directory, name, run, None)
        if process.end() != 0:
            raise AssertionError(self._log())
        lines = [line for line in said(self._directory / "points") if line[0] != "sprung"]
        points = sorted({Point(*line).of_any_run() for line in lines})
        self.tally.violations += [f"{name}: {what}" for what in unnamed(self._url, (Point(*line) for line in lines))]
        found = [*histories(self._url)]
        streams = [
            (history.workflow_id.partition(".")[2], key, history.values(key)[-1][0] // 2 if history.values(key) else 0)
            for history in found
            for key in history.keys()  # noqa: SIM118 (it is no dictionary)
        ]
        return Undisturbed(points, outcome(found), streams)

    def _disturbed(self, name: str, traps: list[Trap], right: Undisturbed, observer: Observer) -> None:
        run = self._new_run()
        began = time.monotonic()
        streams = [(f"{run}.{workflow_id}", key, middle) for workflow_id, key, middle in right.streams]
        observer.follow(streams)
        final_states = FinalStateMonitor(self._url)
        found = self._run_processes(name, run, traps, final_states)
        found += violations(
            self._url,
            right.outcome,
            acknowledged=said(self._directory / "acknowledged"),
            ends=said(self._directory / "ends"),
            readings=observer.readings(streams),
        )
        found += final_states.compare()
        found += left_over(self._url, observers=1)
        title = f"{name}: {', then '.join(map(str, traps))}"
        self.tally.tried[traps[0].how] += 1
        if (seconds := time.monotonic() - began) > SLOW:
            self.tally.slow.append((round(seconds, 1), title))
        if not any(line[0] == "sprung" for line in said(self._directory / "points")):
            self.tally.missed.append(title)
        if found:
            self.tally.violations += [f"{title}: {what}" for what in found]
            print(f"{title}\n" + "\n".join(found) + f"\n{self._log()}", file=sys.stderr, flush=True)

    def _run_processes(self, name: str, run: str, traps: list[Trap], final_states: FinalStateMonitor) -> list[str]:
        """One process after the other, each with its trap, until one comes to the end; what is wrong with them."""
        for number in range(len(traps) + 1):
            trap = traps[number].within(run) if number < len(traps) else None
            status = scenario_process(self._url, self._directory, name, run, trap).end()
            final_states.sample()
            if status == 0:
                return []
            if status != -signal.SIGKILL:
                return [f"process {number} ended with {status}"]
        return ["no process came to its end"]

    def _new_run(self) -> str:
        """Forgets the last run; the name of the next one."""
        self._runs += 1
        for path in ("ledger", "points", "acknowledged", "ends", "log"):
            (self._directory / path).unlink(missing_ok=True)
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "TRUNCATE dbosflow.workflow, dbosflow.step, dbosflow.stream_block, dbosflow.stream_trim, "
                "dbosflow.worker"
            )
        os.environ[ledger.VARIABLE] = str(self._directory / "ledger")
        return f"r{self._runs}"

    def _log(self) -> str:
        path = self._directory / "log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""
