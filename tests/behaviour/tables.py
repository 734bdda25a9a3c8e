"""What the database holds, looked at from outside: plain SQL over the documented tables."""

from __future__ import annotations

import zlib
from typing import Any, LiteralString

import psycopg


def rows(url: str, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        return connection.execute(query, parameters).fetchall()


def records(url: str, workflow_id: str) -> list[tuple[str, str]]:
    """The key and kind of each record of a workflow, in the order they were made."""
    query = "SELECT key, kind FROM dbosflow.step WHERE workflow_id = %s ORDER BY turn, seq"
    return [(key, kind) for key, kind in rows(url, query, workflow_id)]


def stored_values(url: str, workflow_id: str, key: str) -> list[tuple[int, Any]]:
    """Offset and value of everything that a stream holds."""
    query = 'SELECT "offset", value FROM dbosflow.stream_value WHERE workflow_id = %s AND key = %s ORDER BY "offset"'
    return [(offset, value) for offset, value in rows(url, query, workflow_id, key)]


def disorder(url: str) -> list[str]:
    """What contradicts the promises of the tables, whatever happened before: nothing, if all is well.

    Offsets of a stream are dense from 0, or from where it was trimmed; only one terminal frame ends it, and nothing
    follows that; a producer's counts are dense, and its checksums those of its values; ``seq`` is one count over a
    workflow's records, in which epochs and turns never go back; an ended workflow belongs to nobody and has no open
    stream but its messages and events.
    """
    found: list[str] = []
    for name, query in _DISORDER.items():
        found += [f"{name}: {row}" for row in rows(url, query)]
    return found + wrong_checksums(url)


def wrong_checksums(url: str) -> list[str]:
    """Blocks whose checksum is not that of all their producer's values so far, in streams that were not trimmed."""
    sums: dict[tuple[str, ...], tuple[int, int]] = {}
    found = []
    for *producer, before, count, text, checksum in rows(url, _CHECKSUMS):
        written, crc = sums.get(tuple(producer), (0, 0))
        crc = zlib.crc32(f"{text[1:-1]},".encode(), crc)
        sums[tuple(producer)] = (written + count, crc)
        if checksum is not None and written == before and checksum % 2**32 != crc:
            found.append(f"a wrong checksum: {producer}, {before}")
    return found


_CHECKSUMS: LiteralString = """
    SELECT workflow_id, key, producer, producer_seq, count, values::text, checksum
    FROM dbosflow.stream_block WHERE kind = 'values' ORDER BY workflow_id, key, producer, "offset"
"""


_DISORDER: dict[str, LiteralString] = {
    "a gap or an overlap in the offsets": """
        SELECT workflow_id, key, "offset", before FROM (
            SELECT *, coalesce(lag("offset" + count) OVER stream, 0) AS before FROM dbosflow.stream_block
            WINDOW stream AS (PARTITION BY workflow_id, key ORDER BY "offset")) AS block
        WHERE "offset" <> before AND (before > 0 OR "offset" < coalesce((  -- rollbacks that were trimmed have no count
            SELECT sum(t.count) FROM dbosflow.stream_trim t
            WHERE t.workflow_id = block.workflow_id AND t.key = block.key), "offset" + 1))""",
    "a frame after the terminal one": """
        SELECT b.workflow_id, b.key, b."offset" FROM dbosflow.stream_block b JOIN dbosflow.stream_block t
            ON t.workflow_id = b.workflow_id AND t.key = b.key AND t."offset" < b."offset"
        WHERE t.kind IN ('complete', 'error', 'cancelled')""",
    "a gap or a repetition in a producer's counts": """
        SELECT workflow_id, key, producer, producer_seq, before FROM (
            SELECT b.*, coalesce(lag(b.producer_seq + b.count) OVER producer, t.count, 0) AS before
            FROM dbosflow.stream_block b LEFT JOIN dbosflow.stream_trim t USING (workflow_id, key, producer)
            WHERE b.kind = 'values'
            WINDOW producer AS (PARTITION BY workflow_id, key, producer ORDER BY b."offset")) AS block
        WHERE producer_seq <> before""",
    "an epoch that wrote after its successor": """
        SELECT workflow_id, key, "offset", epoch, before FROM (
            SELECT *, lag(epoch) OVER stream AS before FROM dbosflow.stream_block
            WINDOW stream AS (PARTITION BY workflow_id, key ORDER BY "offset")) AS block
        WHERE epoch < before""",
    "what an attempt wrote, uncommitted though its workflow has ended": """
        SELECT b.workflow_id, b.key, b.producer
        FROM dbosflow.stream_block b JOIN dbosflow.workflow w ON w.id = b.workflow_id
        WHERE w.status IN ('succeeded', 'failed', 'cancelled') AND b.kind = 'values' AND b.attempt IS NOT NULL
        GROUP BY b.workflow_id, b.key, b.producer, b.attempt
        HAVING (SELECT count(*) FROM dbosflow.step s
                WHERE s.workflow_id = b.workflow_id AND b.producer = s.key || '@' || b.attempt
                  AND s.kind = 'step' AND s.error IS NULL AND b.attempt IN (s.attempt, '*'))
             + (SELECT count(*) FROM dbosflow.stream_block r
                WHERE r.workflow_id = b.workflow_id AND r.key = b.key AND r.producer = b.producer
                  AND r.kind = 'rollback') <> 1""",
    "a rollback that names other offsets than its attempt wrote": """
        SELECT r.workflow_id, r.key, r."offset" FROM dbosflow.stream_block r
        WHERE r.kind = 'rollback' AND
            (SELECT coalesce(sum(t.count), 0) FROM dbosflow.stream_trim t
             WHERE t.workflow_id = r.workflow_id AND t.key = r.key AND t.producer = r.producer) +
            (SELECT coalesce(sum(b.count), 0) FROM dbosflow.stream_block b
             WHERE b.workflow_id = r.workflow_id AND b.key = r.key AND b.kind = 'values' AND b.producer = r.producer
               AND EXISTS (SELECT FROM json_array_elements(r.values) AS one (range)
                           WHERE b."offset" >= (range->>0)::bigint AND b."offset" + b.count <= (range->>1)::bigint))
            <> (SELECT sum((range->>1)::bigint - (range->>0)::bigint)
                FROM json_array_elements(r.values) AS one (range))""",
    "records out of order": """
        SELECT workflow_id, key, seq, turn, epoch FROM (
            SELECT *, coalesce(lag(seq) OVER run, -1) + 1 AS place, lag(turn) OVER run AS turn_before,
                   lag(epoch) OVER run AS epoch_before,  -- those of earlier iterations are removed
                   max(seq) FILTER (WHERE kind = 'continued') OVER (PARTITION BY workflow_id) AS began
            FROM dbosflow.step WINDOW run AS (PARTITION BY workflow_id ORDER BY seq)) AS record
        WHERE seq <> place AND (began IS NULL OR seq > began) OR turn < turn_before OR epoch < epoch_before""",
    "an ended workflow that is owned": """
        SELECT id, status FROM dbosflow.workflow
        WHERE worker_id IS NOT NULL AND status IN ('queued', 'blocked', 'succeeded', 'failed', 'cancelled')""",
    "an ended workflow with an open stream": """
        SELECT w.id, b.key FROM dbosflow.workflow w JOIN dbosflow.stream_block b ON b.workflow_id = w.id
        WHERE w.status IN ('succeeded', 'failed', 'cancelled') AND NOT starts_with(b.key, 'dbosflow/')
        GROUP BY w.id, b.key HAVING NOT bool_or(b.kind IN ('complete', 'error', 'cancelled'))""",
}
