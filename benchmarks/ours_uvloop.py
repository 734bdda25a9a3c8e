"""dbosflow on uvloop, measured in turn with what ``benchmarks.ours`` is on asyncio's own loop.

Its readers, clients and workers in other processes are on uvloop too.
"""

from importlib.metadata import version

from benchmarks import loop, ours
from benchmarks.job import Contender

CONTENDER = Contender(
    f"{ours.TITLE} on uvloop {version('uvloop')}",
    ours.CONTENDER.prepare,
    {name: loop.on_uvloop(scenario) for name, scenario in ours.CONTENDER.scenarios.items()},
)
