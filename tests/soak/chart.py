"""The levels of a run as a picture: a panel for each kind, a line for each process, and the faults as marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.judging import BOUNDS, warm_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.nemeses.plan import Fault
    from tests.soak.series import Levels

_PANELS = [*BOUNDS, "start to end, p99", "stream latency, p99"]
_COLUMNS = 3


def draw(path: str, levels: Levels, faults: Sequence[Fault], seconds: float, title: str) -> bool:
    """Writes a PNG, with matplotlib; whether that is there."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(_PANELS) // _COLUMNS)
    figure, panels = plt.subplots(
        rows, _COLUMNS, figsize=(7 * _COLUMNS, 2.6 * rows), layout="constrained", sharex=True, squeeze=False
    )
    for what, axes in zip(_PANELS, panels.flat, strict=False):
        bound = BOUNDS[what.partition(",")[0]]
        for whose, series in sorted(levels.of(what).items()):
            times, values = zip(*series.points, strict=True)
            axes.plot(times, [value / bound.scale for value in values], linewidth=1.0, label=whose)
        axes.axvspan(0, warm_up(seconds), color="#dddddd", zorder=0)
        moments = [fault.at for fault in faults]
        axes.scatter(moments, [0] * len(moments), marker="|", s=20, color="#b5482f", linewidths=0.6)
        axes.set_ylim(bottom=0)
        axes.set_title(f"{what} ({bound.unit})" if bound.unit else what, fontsize=9)
        axes.tick_params(labelsize=7)
        if axes.lines:
            axes.legend(fontsize=6, loc="upper left", ncols=2)
    for axes in panels.flat[len(_PANELS) :]:
        axes.axis("off")
    figure.suptitle(f"{title}; grey: the warm-up; red marks: faults; x: seconds", fontsize=10)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return True
