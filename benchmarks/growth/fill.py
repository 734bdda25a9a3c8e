"""Databases with so much in them, written straight into the tables: nobody waits for ten million workflows to run."""

from __future__ import annotations

import psycopg

STREAM_KEY = "values"
LONG_STREAM = "long-stream"
CLAIMED_QUEUE = "crowded"
QUEUED_WORKFLOW = "growing_nothing"

_FINISHED = (
    """
    INSERT INTO dbosflow.workflow (id, name, status, input, output, epoch, created_at, started_at, ended_at)
    SELECT 'finished-' || n, 'finished', 'succeeded', '{}', 'null', 1, at, at, at
    FROM (SELECT n, now() - interval '1 day' - n * interval '1 ms' AS at FROM generate_series(1, %(size)s) AS n) AS s
    """,
    """
    INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, output, started_at)
    SELECT 'finished-' || n, 'echo#1', 'step', 1, 1, 1, '1', now() FROM generate_series(1, %(size)s) AS n
    """,
    """
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT 'finished-' || n, 'values', f.start, f.count, f.kind, f.values::json, f.bytes, '', f.start, 1
    FROM generate_series(1, %(size)s) AS n
    CROSS JOIN (VALUES (0, 50, 'values', '[' || repeat('1,', 49) || '1]', 99), (50, 1, 'complete', NULL, 0))
        AS f (start, count, kind, values, bytes)
    """,
)

# Behind everything that the operations themselves enqueue.
_QUEUED = """
INSERT INTO dbosflow.workflow (id, name, status, queue, priority, input, created_at)
SELECT 'queued-' || n, %(name)s, 'queued', %(queue)s, 10, '{}', now() + n * interval '1 microsecond'
FROM generate_series(1, %(size)s) AS n
"""

# One value a block, the most rows that a stream can have; an input, so that it can be written from outside.
_READER = """
INSERT INTO dbosflow.workflow (id, name, status, queue, input, input_streams)
VALUES (%(id)s, 'reader of a long stream', 'queued', 'nobody serves this', '{}', ARRAY['values'])
"""
_LONG = """
INSERT INTO dbosflow.stream_block (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
SELECT %(id)s, 'values', n, 1, 'values', '[1]', 1, 'w:' || n, 0, 0 FROM generate_series(0, %(size)s - 1) AS n
"""


def finished_workflows(url: str, size: int) -> None:
    """Each with a step, and a stream of 50 values and its end."""
    with psycopg.connect(url) as connection:
        for statement in _FINISHED:
            connection.execute(statement, {"size": size})
    _settle(url)


def queued_workflows(url: str, size: int) -> None:
    """In one queue, of a workflow that the operations know."""
    with psycopg.connect(url) as connection:
        connection.execute(_QUEUED, {"name": QUEUED_WORKFLOW, "queue": CLAIMED_QUEUE, "size": size})
    _settle(url)


def long_stream(url: str, size: int) -> None:
    """One stream of so many blocks."""
    with psycopg.connect(url) as connection:
        connection.execute(_READER, {"id": LONG_STREAM})
        connection.execute(_LONG, {"id": LONG_STREAM, "size": size})
    _settle(url)


def nothing(url: str, size: int) -> None:
    """For what does not grow in the database."""


def _settle(url: str) -> None:
    """What autovacuum and the next checkpoint would do some time later, in the middle of a measurement."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE, FREEZE)")
        connection.execute("CHECKPOINT")
