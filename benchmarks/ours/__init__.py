"""dbosflow, through its public interface alone."""

from benchmarks import loop
from benchmarks.job import Contender
from benchmarks.ours import messages, queues, recovery, streams, transactions, workflows
from dbosflow import Engine

TITLE = "dbosflow"


def _prepare(url: str) -> None:
    with Engine(url, executes=False):
        pass


ON_ASYNCIO = Contender(
    f"{TITLE} on asyncio's loop",
    _prepare,
    workflows.SCENARIOS
    | transactions.SCENARIOS
    | streams.SCENARIOS
    | queues.SCENARIOS
    | messages.SCENARIOS
    | recovery.SCENARIOS,
)

CONTENDER = Contender(
    TITLE,
    _prepare,
    {name: loop.on_uvloop(scenario) for name, scenario in ON_ASYNCIO.scenarios.items()},
)
"""On uvloop where that is installed, as `dbosflow worker` is; and so are its readers, clients and workers elsewhere."""
