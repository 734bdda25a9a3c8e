"""The table as a picture: how many times better than the peer, and than other peers where they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.table import OTHERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.report import Line

_COLOURS = {"met": "#2a7f4f", "MISSED": "#b5482f"}
_OTHER = "#7a7a7a"
_MARKERS = dict(zip(OTHERS, "osD^", strict=True))


def draw(path: str, titles: Mapping[str, str], found: Sequence[Line], title: str) -> None:
    """Writes a PNG. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [line for line in reversed(found) if line.faster]
    figure, axes = plt.subplots(figsize=(11, 1.5 + 0.36 * len(shown)), layout="constrained")
    for height, line in enumerate(shown):
        assert line.faster
        axes.barh(height, line.faster, color=_COLOURS.get(line.verdict, _OTHER), height=0.7)
        axes.text(line.faster * 1.06, height, f"{line.faster:.3g}x", va="center", fontsize=8)
        if line.row.faster:
            axes.plot([line.row.faster] * 2, [height - 0.42, height + 0.42], color="black", linewidth=2)
    for name, marker in _MARKERS.items():
        marks = [(times, height) for height, line in enumerate(shown) if (times := line.times_better("ours", name))]
        if marks:
            label = f"times better than {titles[name]}"
            axes.plot(*zip(*marks, strict=True), marker, color="black", fillstyle="none", label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    axes.set_yticks(range(len(shown)), [line.row.title for line in shown], fontsize=8)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times better than the peer (the bar), the target (the mark)")
    axes.set_title(title.replace("; ", "\n"), fontsize=9)
    axes.margins(x=0.12, y=0.01)
    figure.savefig(path, dpi=130)
    plt.close(figure)
