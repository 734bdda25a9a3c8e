"""DBOS Transact: the peer that a user would pick.

As its documentation has it: its own pools, its system database on the same server, no telemetry, no conductor. What
polls by default is measured as it is by default, and once more with the interval that suits the scenario best.
"""

from importlib.metadata import version

from benchmarks.job import Contender
from benchmarks.peer import application, messages, queues, recovery, streams, transactions, workflows

CONTENDER = Contender(
    f"DBOS {version('dbos')}",
    application.prepare,
    workflows.SCENARIOS
    | transactions.SCENARIOS
    | streams.SCENARIOS
    | queues.SCENARIOS
    | messages.SCENARIOS
    | recovery.SCENARIOS,
)
