"""psycopg alone: what Postgres and its driver can do, for an engine that costs nothing.

Not an engine: nothing is fenced, replayed or read back. Tables are as narrow as the promise allows; only on the idle queue
the statements are dbosflow's own.
"""

from benchmarks.job import Contender
from benchmarks.limit import queues, streams, transactions, workflows
from benchmarks.limit.tables import prepare

CONTENDER = Contender(
    "psycopg", prepare, workflows.SCENARIOS | transactions.SCENARIOS | streams.SCENARIOS | queues.SCENARIOS
)
