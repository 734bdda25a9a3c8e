"""The wall clocks of workers and readers are wrong by hours, each in its own way; its nemesis makes them jump.

The database's clock is right, and so is that of the run itself, by which all is checked.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.chaos.nemeses import plan
from tests.chaos.nodes.libfaketime import MISSING, environment, find_library, set_clock
from tests.chaos.nodes.processes import ProgramConfig
from tests.chaos.topologies.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.chaos.nemeses.plan import Fault

_HOUR = 3600.0
_FIRST = (3 * _HOUR, -7 * _HOUR, 1.5, -1.5)
"""How far ahead the clocks are at first, by the index of the process."""


class ClockSkewTopology(Topology):
    """One server, and processes with wrong clocks, which jump."""

    kinds: Mapping[str, int] = {"jump clock": 20}  # of a worker: from now on it is wrong by as much as somebody draws

    def __init__(self) -> None:
        super().__init__()
        self._jumps: list[float] = []

    def missing(self) -> str | None:
        return MISSING if find_library() is None else None

    def weights(self) -> Mapping[str, int]:
        """Few faults excuse a lease that was not renewed: what is looked for is a clock that does."""
        return plan.KINDS | {"freeze": 1, "terminate": 1, "blackhole": 0, "delay": 0, "fill": 0} | dict(self.kinds)

    def config(self, name: str, index: int) -> ProgramConfig:
        library = find_library()
        if library is None or name == "chaos-client":  # which lives in the process of the run
            return ProgramConfig()
        clock = self._clock(index)
        if not clock.exists():
            set_clock(clock, _FIRST[index % len(_FIRST)])
        return ProgramConfig(environment=environment(library, clock))

    async def inject(self, fault: Fault) -> None:
        draw = random.Random(str(fault))
        self._jumps.append(draw.choice([1.0, 10.0, 60.0, _HOUR, 30 * _HOUR]) * draw.uniform(-1.0, 1.0))
        set_clock(self._clock(fault.target), self._jumps[-1])

    def figures(self) -> list[str]:
        return [
            f"clocks of workers jumped {len(self._jumps)} times, to up to {max(map(abs, self._jumps), default=0):.0f} s"
        ]

    def _clock(self, index: int) -> Path:
        return self.server.root / f"clock-{index}"
