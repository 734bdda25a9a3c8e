"""``python -m benchmarks.growth``: is the cost of one operation the same when there is a lot of everything?

Each size has a database and a process of its own; the sizes take turns, operation by operation, and the medians of the
rounds are compared. Ten million finished workflows take about 18 GB of disk and ten minutes or more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.growth.dimensions import FLAT, dimensions
from benchmarks.growth.operations import timer
from benchmarks.ours import CONTENDER
from benchmarks.server import database, describe, own_server

if TYPE_CHECKING:
    from benchmarks.growth.dimensions import Dimension

Medians = dict[str, dict[int, float]]
"""Milliseconds by operation and size."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="how far tables grow (1,000,000)")
    parser.add_argument("--rounds", type=int, default=9, help="of 40 times each operation (9)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(dimensions(1)), help="what grows")
    parser.add_argument("--url", help="a server to measure on, as a role that may create databases")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--png", metavar="FILE", help="needs matplotlib")
    options = parser.parse_args()
    chosen = {name: one for name, one in dimensions(options.rows).items() if name in (options.only or [name])}
    with nullcontext(options.url) if options.url else own_server() as url:
        about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "server": describe(url)}
        about["machine"] = f"{os.cpu_count()} cores, Python {platform.python_version()}"
        found = {}
        for name, dimension in chosen.items():
            found[name] = grown(url, dimension, options.rounds)
            print(_table(dimension, found[name]), end="\n\n", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(about | {"medians_ms": found}, indent=1) + "\n", "utf-8")
    if options.png:
        _draw(options.png, {chosen[name].title: medians for name, medians in found.items()})


def grown(server_url: str, dimension: Dimension, rounds: int) -> Medians:
    """The medians of one dimension."""
    with ExitStack() as databases:
        urls = {size: databases.enter_context(database(server_url, f"bench_growth_{size}")) for size in dimension.sizes}
        for size, url in urls.items():
            CONTENDER.prepare(url)
            dimension.fill(url, size)
            print(f"{size:,} {dimension.title}: filled", file=sys.stderr, flush=True)
        timers = {
            size: databases.enter_context(timer(url, size, others=size - 1 if dimension.workers else 0))
            for size, url in urls.items()
        }
        rows: dict[str, dict[int, list[float]]] = {name: {size: [] for size in urls} for name in dimension.operations}
        for number in range(rounds):
            turn = number % len(timers)
            for name in dimension.operations:
                for size in (*dimension.sizes[turn:], *dimension.sizes[:turn]):
                    rows[name][size].append(timers[size].time(name))
    return {name: {size: statistics.median(took) for size, took in sizes.items()} for name, sizes in rows.items()}


def growth(medians: dict[int, float]) -> float:
    """How many times as slow at the largest size as at the smallest."""
    return medians[max(medians)] / medians[min(medians)]


def _table(dimension: Dimension, medians: Medians) -> str:
    heads = "".join(f"{size:>12,}" for size in dimension.sizes)
    lines = [f"{dimension.title:42}{heads}"]
    for name, sizes in medians.items():
        shown = "".join(f"{took:9.2f} ms" for took in sizes.values())
        ratio = growth(sizes)
        lines.append(f"  {name:40}{shown}   {ratio:.2f}x {'flat' if ratio <= FLAT else 'GROWS'}")
    return "\n".join(lines)


def _draw(path: str, found: dict[str, Medians]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(1, len(found), figsize=(5 * len(found), 4), squeeze=False, layout="constrained")
    for axes, (title, medians) in zip(grid[0], found.items(), strict=True):
        for name, sizes in medians.items():
            axes.plot(list(sizes), list(sizes.values()), marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel=title, ylabel="ms")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
