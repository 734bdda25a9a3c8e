"""Service times from measured CPU: what a batch takes, and what each record in it adds.

Two lines give both: in one each record has a batch of its own, in the other many share one. The flush is what a lone
commit of bare psycopg takes besides CPU. So nothing is fitted to the rates that the simulation is to predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.scaling.model import Costs

if TYPE_CHECKING:
    from collections.abc import Callable

    Figure = Callable[[str, str, str], float | None]
    """The median of a scenario's figure, for a contender."""

_MICROSECONDS = 1e-6


@dataclass(frozen=True)
class Line:
    """A line of the benchmarks as a closed system: so many workflows, each with one record after the other."""

    scenario: str
    workflows: int


@dataclass(frozen=True)
class Fit:
    """A lone line and a crowded one of the same operation."""

    lone: Line
    crowded: Line
    lines: tuple[Line, ...]
    """Those that the fit's costs are to predict."""


STEPS = Fit(
    Line("steps_async", 1),
    Line("steps_1000", 1000),
    (Line("steps_async", 1), Line("steps_100", 100), Line("steps_1000", 1000)),
)
WORKFLOWS = Fit(
    Line("start_to_result", 1),
    Line("no_step", 1000),
    (Line("start_to_result", 1), Line("no_step", 1000)),
)
FITS = (STEPS, WORKFLOWS)


class IncompleteFiguresError(Exception):
    """A figure is missing that the fit needs; the message names it."""


def needed(figure: Figure, scenario: str, contender: str, name: str) -> float:
    """A figure that must be there."""
    found = figure(scenario, contender, name)
    if found is None:
        msg = f"no figure {name!r} of {contender} in {scenario}: measure steps_async, steps_100, steps_1000, "
        raise IncompleteFiguresError(msg + "start_to_result and no_step, on a server whose processes /proc shows")
    return found


def flush(figure: Figure) -> float:
    """Seconds for which a lone commit waits besides CPU: for the disk, and for two processes to be woken."""
    taken = 1 / needed(figure, "steps_async", "limit", "rate")
    return taken - _MICROSECONDS * sum(
        needed(figure, "steps_async", "limit", name) for name in ("client_cpu_us", "server_cpu_us")
    )


def costs(figure: Figure, fit: Fit) -> Costs:
    """The service times of an operation's batches and records."""
    client_batch, client_record = _split(figure, fit, "client_cpu_us")
    server_batch, server_record = _split(figure, fit, "server_cpu_us")
    return Costs(
        client_batch * _MICROSECONDS,
        client_record * _MICROSECONDS,
        server_batch * _MICROSECONDS,
        server_record * _MICROSECONDS,
        flush(figure),
    )


def wal(figure: Figure, fit: Fit) -> tuple[float, float]:
    """Bytes of WAL of a batch, and of each record in it."""
    return _split(figure, fit, "wal_bytes")


def _split(figure: Figure, fit: Fit, name: str) -> tuple[float, float]:
    lone = needed(figure, fit.lone.scenario, "ours", name)
    crowded = needed(figure, fit.crowded.scenario, "ours", name)
    batch = 1 / needed(figure, fit.crowded.scenario, "ours", "commits")
    shared = max((lone - crowded) / (1 - 1 / batch), 0.0)
    return shared, max(lone - shared, 0.0)
