"""``python -m benchmarks``: measures every row of the table, and says which targets are met."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import chart, report
from benchmarks.rounds import measure_all
from benchmarks.server import describe, own_server
from benchmarks.table import CONTENDERS, LEFT_OUT, ROWS, Row


def main() -> None:
    """The command."""
    options = _options()
    if options.list:
        for row in ROWS:
            print(f"{row.name:17} {row.title}")
        print("\n".join(f"left out: {text}" for text in LEFT_OUT))
        return
    rows = _chosen(options.only)
    scenarios = list(dict.fromkeys(row.scenario for row in rows))
    server = nullcontext(options.url) if options.url else own_server(slow_disk=options.slow_disk)
    with server as url:
        load = os.getloadavg()[0]
        about = _about(url, options)
        results = measure_all(
            url,
            scenarios,
            rounds=options.rounds or (1 if options.quick else 3),
            quick=options.quick,
            say=lambda text: print(text, file=sys.stderr, flush=True),
            contenders=options.contenders,
        )
    about["load_after"] = os.getloadavg()
    found = report.lines(results, rows)
    description = f"{about['server']}; {about['machine']}; load {load:.1f} before"
    tables = [report.table(results, found), report.others(results, found), report.loops(results, found)]
    parts = [description, *filter(None, tables), report.costs(results), report.footer(results)]
    print("\n\n".join(parts))
    if options.json:
        Path(options.json).write_text(json.dumps(report.as_json(results, found, about), indent=1) + "\n", "utf-8")
    if options.png:
        chart.draw(options.png, results.titles, found, description)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--url", help="a server to measure on, as a role that may create databases; default: one of its own"
    )
    parser.add_argument("--slow-disk", action="store_true", help="its own server waits 2 ms before each flush")
    parser.add_argument("--rounds", type=int, help="default: 3, or 1 with --quick; medians are shown")
    parser.add_argument("--quick", action="store_true", help="less work for each, in 3 minutes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows, or scenarios")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS, help="default: all")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--png", metavar="FILE", help="draw a chart there; needs matplotlib")
    parser.add_argument("--list", action="store_true", help="name the rows")
    options = parser.parse_args()
    if options.url and options.slow_disk:
        parser.error("--slow-disk is for a server of its own; set commit_delay on yours")
    return options


def _chosen(names: list[str] | None) -> list[Row]:
    if names is None:
        return list(ROWS)
    unknown = set(names) - {row.name for row in ROWS} - {row.scenario for row in ROWS}
    if unknown:
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; --list names them")
    return [row for row in ROWS if row.name in names or row.scenario in names]


def _about(url: str, options: argparse.Namespace) -> dict[str, object]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "server": describe(url) + (", slow disk emulated" if options.slow_disk else ""),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load_before": os.getloadavg(),
        "quick": options.quick,
    }


if __name__ == "__main__":
    main()
