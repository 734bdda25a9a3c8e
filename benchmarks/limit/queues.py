"""A queue where nothing else waits: a row, a claim and an end, a commit each, and a notification to either side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg

from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_ENQUEUE = "INSERT INTO workflow (id, input) VALUES (%s, '{}')"
_CLAIM = (
    "UPDATE workflow SET claimed_at = now() WHERE id = (SELECT id FROM workflow WHERE claimed_at IS NULL"
    " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"
)
_END = "UPDATE workflow SET output = 'null', ended_at = now() WHERE id = %s"
_RESULT = "SELECT output FROM workflow WHERE id = %s AND ended_at IS NOT NULL"
_CLAIMABLE = """
ALTER TABLE workflow ADD claimed_at timestamptz;
CREATE INDEX ON workflow (id) WHERE claimed_at IS NULL;
"""


def idle(job: Job) -> Figures:
    """From the insert to the result, in two processes."""
    took = []
    with psycopg.connect(job.url, autocommit=True) as connection:
        connection.execute(_CLAIMABLE)
        with (
            half(_work, job.url) as worker,
            psycopg.connect(job.url, autocommit=True) as listener,
            psycopg.connect(job.url, autocommit=True) as notifier,
        ):
            notifier.execute("SET synchronous_commit = off")
            listener.execute("LISTEN ended")
            worker.receive()
            for number in range(job.size + 3):
                time.sleep(0.05)
                began = time.monotonic()
                connection.execute(_ENQUEUE, (str(number),), prepare=True)
                notifier.execute("SELECT pg_notify('queued', '')", prepare=True)
                for _ in listener.notifies(stop_after=1):
                    found = connection.execute(_RESULT, (str(number),), prepare=True).fetchone()
                    assert found
                took.append(time.monotonic() - began)
            worker.kill()
    return delays(took[3:])


def _work(pipe: Connection, url: str) -> None:
    with (
        psycopg.connect(url, autocommit=True) as connection,
        psycopg.connect(url, autocommit=True) as listener,
        psycopg.connect(url, autocommit=True) as notifier,
    ):
        notifier.execute("SET synchronous_commit = off")
        listener.execute("LISTEN queued")
        pipe.send("ready")
        for _ in listener.notifies():
            claimed = connection.execute(_CLAIM, prepare=True).fetchone()
            assert claimed
            connection.execute(_END, claimed, prepare=True)
            notifier.execute("SELECT pg_notify('ended', '')", prepare=True)


SCENARIOS: dict[str, Scenario] = {"queue_idle": idle}
