"""The results as people and programs read them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.table import LEFT_OUT, MAIN, OTHERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.rounds import Results
    from benchmarks.table import Row

_COSTS = {
    "wal_bytes": "WAL bytes",
    "commits": "commits",
    "client_cpu_us": "client CPU us",
    "server_cpu_us": "server CPU us",
}


@dataclass(frozen=True)
class Line:
    """A row with what was found."""

    row: Row
    figures: dict[str, float]
    """By contender."""

    def times_better(self, one: str, other: str) -> float | None:
        """How many times better one contender is than another; ``None`` where either is missing."""
        figure, reference = self.figures.get(one), self.figures.get(other)
        if not figure or not reference:
            return None
        return figure / reference if self.row.more_is_better else reference / figure

    @property
    def faster(self) -> float | None:
        """How many times better than the peer."""
        return self.times_better("ours", "peer")

    @property
    def near(self) -> float | None:
        """For rates the share of the limit, for times how many times as long."""
        ours, limit = self.figures.get("ours"), self.figures.get("limit")
        return ours / limit if ours is not None and limit else None

    def targets(self) -> list[tuple[str, bool | None]]:
        """Each target as text, and whether it is met; ``None`` where that cannot be said."""
        row, ours = self.row, self.figures.get("ours")
        near = f">= {row.near} of limit" if row.more_is_better else f"<= {row.near}x limit"
        return [
            (text, None if target is None or found is None else found >= target if upward else found <= target)
            for text, found, target, upward in (
                (f">= {row.faster:g}x peer" if row.faster else "", self.faster, row.faster, True),
                (near if row.near else "", self.near, row.near, row.more_is_better),
                (f"<= {row.at_most:g} {row.unit}" if row.at_most is not None else "", ours, row.at_most, False),
                (f">= {row.at_least:g} {row.unit}" if row.at_least is not None else "", ours, row.at_least, True),
            )
            if text
        ]

    @property
    def verdict(self) -> str:
        """``met``, ``MISSED``, ``?`` where a contender is missing, or nothing where there is no target."""
        found = [met for _, met in self.targets()]
        if not found:
            return ""
        return "MISSED" if False in found else "?" if None in found else "met"


def lines(results: Results, rows: Iterable[Row]) -> list[Line]:
    """The rows with the medians of the rounds."""
    found = []
    for row in rows:
        figures = {}
        for name in results.titles:
            key = row.figure if name in {"ours", "limit"} else row.peer_key()
            median = results.median(row.scenario, name, key)
            if median is not None:
                figures[name] = median
        found.append(Line(row, figures))
    return found


def table(results: Results, found: Sequence[Line]) -> str:
    """The rows with their targets, in Markdown that also reads well in a terminal."""
    names = [name for name in MAIN if name in results.titles]
    heads = ["what", *_titles(results, names), "against peer", "against limit", "target", "verdict"]
    cells = [
        [
            line.row.title,
            *(_figure(line.figures.get(name), line.row.unit) for name in names),
            _ratio(line.faster),
            _ratio(line.near),
            ", ".join(text for text, _ in line.targets()),
            line.verdict,
        ]
        for line in found
    ]
    return _grid(heads, cells)


def others(results: Results, found: Sequence[Line]) -> str:
    """The rows of the other peers; nothing where none was measured."""
    return _side_by_side(results, found, [("ours", name) for name in OTHERS])


def loops(results: Results, found: Sequence[Line]) -> str:
    """The rows that were measured on both event loops; nothing where none was."""
    return _side_by_side(results, found, [("ours", "ours_asyncio")])


def _side_by_side(results: Results, found: Sequence[Line], pairs: Sequence[tuple[str, str]]) -> str:
    """The rows that compare any of the pairs, and how many times better the first of each is than the second."""
    pairs = [pair for pair in pairs if any(line.times_better(*pair) for line in found)]
    if not pairs:
        return ""
    names = [name for name in results.titles if any(name in pair for pair in pairs)]
    ratios = [" against ".join(_titles(results, pair)) for pair in pairs]
    cells = [
        [
            line.row.title,
            *(_figure(line.figures.get(name), line.row.unit) for name in names),
            *(_ratio(line.times_better(*pair)) for pair in pairs),
        ]
        for line in found
        if any(line.times_better(*pair) for pair in pairs)
    ]
    return _grid(["what", *_titles(results, names), *ratios], cells)


def _titles(results: Results, names: Iterable[str]) -> list[str]:
    return [results.titles[name] for name in names]


def costs(results: Results) -> str:
    """What one operation takes: steadier than times."""
    cells = []
    for scenario in results.rounds:
        for name, title in results.titles.items():
            medians = [results.median(scenario, name, cost) for cost in _COSTS]
            if any(median is not None for median in medians):
                cells.append([scenario, title, *(_figure(median, "") for median in medians)])
    return _grid(["an operation of", "takes", *_COSTS.values()], cells)


def footer(results: Results) -> str:
    """What is not in the table, and why."""
    return "\n".join(f"* {note}" for note in (*results.notes, *LEFT_OUT))


def as_json(results: Results, found: Sequence[Line], about: dict[str, Any]) -> dict[str, Any]:
    """All of it: the rows with their verdicts, and each round's figures."""
    rows = [
        asdict(line.row)
        | {"figures": line.figures, "against_peer": line.faster, "against_limit": line.near, "verdict": line.verdict}
        | {"against_others": {name: line.times_better("ours", name) for name in OTHERS if name in line.figures}}
        | {"uvloop_against_asyncio": line.times_better("ours", "ours_asyncio")}
        for line in found
    ]
    return about | {"contenders": results.titles, "rows": rows, "rounds": results.rounds, "notes": results.notes}


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}x"


def _grid(heads: list[str], cells: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [heads, *cells]) for column in range(len(heads))]
    shown = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in [heads, *cells]]
    shown.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(row) + " |" for row in shown)
