"""Every contender in turn, round by round: what disturbs the machine for a while disturbs all of them.

Each measurement is a process of its own on a fresh database, so one that crashes or leaks does no harm to the next.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.measure import contender
from benchmarks.server import database
from benchmarks.table import CONTENDERS, IN_A_HURRY, WORK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.job import Figures

_PATIENCE = 240.0


@dataclass
class Results:
    """What was found: scenario, contender, and a list of figures, one a round."""

    titles: dict[str, str]
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, scenario: str, name: str, figures: Figures) -> None:
        """One measurement."""
        self.rounds.setdefault(scenario, {}).setdefault(name, []).append(figures)

    def median(self, scenario: str, name: str, figure: str) -> float | None:
        """The median of the rounds; ``None`` where nothing was measured."""
        found = [one[figure] for one in self.rounds.get(scenario, {}).get(name, ()) if figure in one]
        return statistics.median(found) if found else None


class MeasurementError(Exception):
    """A measurement's process failed; the message is the last that it said."""


def available(names: Sequence[str] = CONTENDERS) -> tuple[dict[str, str], list[str]]:
    """The titles of the contenders that are installed, and a note for each one that is not."""
    titles, notes = {}, []
    for name in names:
        try:
            titles[name] = contender(name).title
        except ImportError as error:
            notes.append(f"{name} is left out: {error}")
    return titles, notes


def measure_all(
    server_url: str,
    scenarios: Sequence[str],
    *,
    rounds: int,
    quick: bool,
    say: Callable[[str], None],
    contenders: Sequence[str] = CONTENDERS,
) -> Results:
    """Measures the scenarios; ``say`` gets each measurement. If time runs out, the last ones are left out."""
    deadline = time.monotonic() + IN_A_HURRY if quick else math.inf
    titles, notes = available(contenders)
    results = Results(titles, notes=notes)
    with ExitStack() as templates:
        for name in titles:
            url = templates.enter_context(database(server_url, _template(name)))
            _measured(name, "prepare", url, 0)
        for number in range(rounds):
            for scenario in scenarios:
                if time.monotonic() > deadline:
                    results.notes.append(f"{scenario} had no time")
                    continue
                for name in _rotated([name for name in titles if _size(scenario, name, quick=quick)], number):
                    _measure(results, server_url, scenario, name, quick=quick, say=say)
    return results


def _measure(
    results: Results, server_url: str, scenario: str, name: str, *, quick: bool, say: Callable[[str], None]
) -> None:
    size, began = _size(scenario, name, quick=quick) or 0, time.monotonic()
    try:
        with database(server_url, f"bench_{name}_run", template=_template(name)) as url:
            figures = _measured(name, scenario, url, size)
    except MeasurementError as error:
        results.notes.append(f"{scenario} of {results.titles[name]} failed: {error}")
        say(results.notes[-1])
        return
    results.add(scenario, name, figures)
    shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
    say(f"{scenario} {results.titles[name]}: {shown} ({time.monotonic() - began:.1f} s)")


def _measured(name: str, scenario: str, url: str, size: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.measure", name, scenario, url, str(size)]
    life, our_end = os.pipe()  # what reads there ends with us, however we end
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=life, capture_output=True, text=True, timeout=_PATIENCE, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"not done within {_PATIENCE:g} s") from None
    finally:
        os.close(life)
        os.close(our_end)
    if done.returncode:
        raise MeasurementError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _template(name: str) -> str:
    return f"bench_{name}_template"


def _size(scenario: str, name: str, *, quick: bool) -> int | None:
    return WORK[scenario].size(name, quick=quick)


def _rotated(names: list[str], by: int) -> list[str]:
    """So that each round begins with another one."""
    start = by % len(names) if names else 0
    return names[start:] + names[:start]
