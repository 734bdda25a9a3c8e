"""dbosflow, through its public interface alone."""

from benchmarks.job import Contender
from benchmarks.ours import messages, queues, recovery, streams, transactions, workflows
from dbosflow import Engine

TITLE = "dbosflow"


def _prepare(url: str) -> None:
    with Engine(url, executes=False):
        pass


CONTENDER = Contender(
    TITLE,
    _prepare,
    workflows.SCENARIOS
    | transactions.SCENARIOS
    | streams.SCENARIOS
    | queues.SCENARIOS
    | messages.SCENARIOS
    | recovery.SCENARIOS,
)
