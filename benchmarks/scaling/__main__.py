"""``python -m benchmarks.scaling``: what loads take, from service times that it measures or reads.

It simulates the lines of the benchmarks with these times, and says whether their ratios come out within 20 % of the
measured ones. Then it simulates workers and servers that are not here: see docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import measure_all
from benchmarks.scaling import fit as fits
from benchmarks.scaling.model import closed, opened
from benchmarks.server import own_server

if TYPE_CHECKING:
    from benchmarks.scaling.fit import Figure, Fit, Line
    from benchmarks.scaling.model import Costs

SCENARIOS = ("steps_async", "steps_100", "steps_1000", "no_step", "start_to_result")
WITHIN = 0.2
WORKERS = (1, 10, 100)
RATES = (1_000, 10_000, 100_000)
_FULL = 0.9
"""A worker's core that is busier than this on average is not counted on."""
_MANY_CORES = 64
"""Of the simulated server: what of them is busy is what the load takes."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--figures", metavar="FILE", help="take what `python -m benchmarks --json FILE` has measured")
    parser.add_argument("--rounds", type=int, default=5, help="of measurements (5); medians are taken")
    options = parser.parse_args()
    figure = _read(Path(options.figures)) if options.figures else _measured(options.rounds)
    try:
        steps, workflows = (fits.costs(figure, fit) for fit in fits.FITS)
    except fits.IncompleteFiguresError as error:
        sys.exit(str(error))
    for name, found in (("a step", steps), ("half a workflow without steps", workflows)):
        print(f"{name}, us: {_shown(found)}")
    print("\n" + checked(figure))
    print("\n" + capacity(steps, fits.wal(figure, fits.STEPS)))


def _measured(rounds: int) -> Figure:
    with own_server() as url:
        results = measure_all(
            url,
            SCENARIOS,
            rounds=rounds,
            quick=False,
            say=lambda text: print(text, file=sys.stderr, flush=True),
            contenders=("ours", "limit"),
        )
    return results.median


def _read(file: Path) -> Figure:
    rounds: dict[str, Any] = json.loads(file.read_text("utf-8"))["rounds"]

    def median(scenario: str, contender: str, figure: str) -> float | None:
        found = [one[figure] for one in rounds.get(scenario, {}).get(contender, ()) if figure in one]
        return statistics.median(found) if found else None

    return median


def _shown(costs: Costs) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {seconds * 1e6:.1f}" for name, seconds in vars(costs).items())


def checked(figure: Figure) -> str:
    """The lines as simulated and as measured, each against the first one."""
    rows = [(line, _simulated(figure, fit, line), _rate(figure, line)) for fit in fits.FITS for line in fit.lines]
    _, first_simulated, first_measured = rows[0]
    texts = ["| line | simulated /s | measured /s | ratios to the first, one by the other | |", "|---|---|---|---|---|"]
    for line, simulated, measured in rows:
        quotient = (simulated / first_simulated) / (measured / first_measured)
        verdict = "met" if 1 - WITHIN <= quotient <= 1 / (1 - WITHIN) else "MISSED"
        texts.append(f"| {line.scenario} | {simulated:,.0f} | {measured:,.0f} | {quotient:.2f} | {verdict} |")
    return "\n".join(texts)


def _simulated(figure: Figure, fit: Fit, line: Line) -> float:
    return closed(fits.costs(figure, fit), workflows=line.workflows).rate


def _rate(figure: Figure, line: Line) -> float:
    p50 = figure(line.scenario, "ours", "p50")
    return fits.needed(figure, line.scenario, "ours", "rate") if p50 is None else 1000 / p50


def capacity(costs: Costs, wal: tuple[float, float]) -> str:
    """What loads of steps take, by the number of workers that share them."""
    texts = [
        "| steps/s | workers | a worker's core | cores of the server | flushes/s | WAL, MB/s | steps a batch | p50, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rate in RATES:
        for workers in WORKERS:
            if rate * costs.client_record > workers * _FULL:
                least = int(rate * costs.client_record / _FULL) + 1
                texts.append(f"| {rate:,} | {workers} | too few: {least} or more | | | | | |")
                continue
            found = opened(costs, rate=rate, workers=workers, cores=_MANY_CORES, seconds=2.0 if rate < 50_000 else 0.5)
            volume = rate * (wal[0] / found.batch + wal[1]) / 1e6
            texts.append(
                f"| {rate:,} | {workers} | {found.client_load:.0%} | {found.server_cores:.1f} | {found.flushes:,.0f} | "
                f"{volume:.1f} | {found.batch:.1f} | {found.latency * 1e3:.1f} |"
            )
    return "\n".join(texts)


if __name__ == "__main__":
    main()
