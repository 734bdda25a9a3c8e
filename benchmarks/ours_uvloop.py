"""dbosflow on uvloop, measured in turn with what ``benchmarks.ours`` is on asyncio's own loop.

Its readers, clients and workers in other processes are on uvloop too.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks import loop, ours
from benchmarks.job import Contender

if TYPE_CHECKING:
    from benchmarks.job import Figures, Job, Scenario


def _on_uvloop(scenario: Scenario) -> Scenario:
    def run(job: Job) -> Figures:
        loop.choose_uvloop()
        return scenario(job)

    return run


CONTENDER = Contender(
    f"{ours.TITLE} on uvloop {version('uvloop')}",
    ours.CONTENDER.prepare,
    {name: _on_uvloop(scenario) for name, scenario in ours.CONTENDER.scenarios.items()},
)
