"""Steps and starts as bare commits."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered

if TYPE_CHECKING:
    from collections.abc import Callable

_RECORD = "INSERT INTO record VALUES (%s, %s, %s::json)"
_RECORDS = "INSERT INTO record SELECT w, k, o::json FROM unnest(%s::text[], %s::text[], %s::text[]) AS r (w, k, o)"
_WHOLE = "INSERT INTO workflow VALUES (%s, '{}', 'null', now())"
_WHOLES = "INSERT INTO workflow SELECT w, '{}', 'null', now() FROM unnest(%s::text[]) AS s (w)"
_WARM_UP = 50
_TEXT = "some words of an argument"


def steps_async(job: Job) -> Figures:
    """A commit a record, on an event loop."""
    return asyncio.run(_steps_async(job))


async def _steps_async(job: Job) -> Figures:
    async with await psycopg.AsyncConnection.connect(job.url, autocommit=True) as connection:
        for number in range(_WARM_UP):
            await connection.execute(_RECORD, ("warm-up", str(number), "1"), prepare=True)
        with metered(job.url) as meter:
            for number in range(job.size):
                await connection.execute(_RECORD, ("one", f"echo#{number}", str(number)), prepare=True)
    return meter.rate(job.size)


def steps_sync(job: Job) -> Figures:
    """A commit a record."""
    with psycopg.connect(job.url, autocommit=True) as connection:
        for number in range(_WARM_UP):
            connection.execute(_RECORD, ("warm-up", str(number), "1"), prepare=True)
        with metered(job.url) as meter:
            for number in range(job.size):
                connection.execute(_RECORD, ("one", f"echo#{number}", str(number)), prepare=True)
    return meter.rate(job.size)


def coalesced_steps(workflows: int) -> Callable[[Job], Figures]:
    """A commit for a record of each of so many workflows."""

    def run(job: Job) -> Figures:
        ids = [f"workflow-{number}" for number in range(workflows)]
        with psycopg.connect(job.url, autocommit=True) as connection:
            connection.execute(_RECORDS, (ids, ["warm-up"] * workflows, ["1"] * workflows), prepare=True)
            turns = max(1, job.size // workflows)
            with metered(job.url) as meter:
                for turn in range(turns):
                    outputs = [str(turn)] * workflows
                    connection.execute(_RECORDS, (ids, [f"echo#{turn}"] * workflows, outputs), prepare=True)
        return meter.rate(workflows * turns)

    return run


def no_step_workflows(job: Job) -> Figures:
    """1,000 in a commit: a workflow that waits for nothing is one row, with its end."""
    with psycopg.connect(job.url, autocommit=True) as connection:
        with metered(job.url) as meter:
            for wave in range(job.size // 1000):
                ids = [f"workflow-{wave}-{number}" for number in range(1000)]
                connection.execute(_WHOLES, (ids,), prepare=True)
        return meter.rate(job.size)


def start_to_result(job: Job) -> Figures:
    """A commit, for the same reason."""
    return asyncio.run(_start_to_result(job))


async def _start_to_result(job: Job) -> Figures:
    took = []
    async with await psycopg.AsyncConnection.connect(job.url, autocommit=True) as connection:
        with metered(job.url) as meter:
            for number in range(job.size):
                began = time.monotonic()
                await connection.execute(_WHOLE, (f"workflow-{number}",), prepare=True)
                took.append(time.monotonic() - began)
    return delays(took) | meter.costs(job.size)


_STARTED = """
CREATE TABLE started (
    id text PRIMARY KEY, name text NOT NULL, status text NOT NULL, queue text NOT NULL, priority integer NOT NULL, input json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON started (queue, priority, created_at, id) WHERE status = 'queued';
CREATE INDEX ON started (created_at, id);
"""
_START_MANY = """
INSERT INTO started (id, name, status, queue, priority, input)
SELECT i, n, 'queued', q, p, t::json
FROM unnest(%s::text[], %s::text[], %s::text[], %s::integer[], %s::text[]) AS s (i, n, q, p, t)
"""


def start_many(job: Job) -> Figures:
    """Rows like those of dbosflow, 1,000 in a statement from unnested arrays, with the indexes that dbosflow keeps for them."""
    with psycopg.connect(job.url, autocommit=True) as connection:
        connection.execute(_STARTED)
        with metered(job.url) as meter:
            for chunk in range(job.size // 1000):
                ids = [str(uuid4()) for _ in range(1000)]
                texts = [json.dumps({"number": chunk + number, "text": _TEXT}) for number in range(1000)]
                columns = (ids, ["nothing"] * 1000, ["default"] * 1000, [0] * 1000, texts)
                connection.execute(_START_MANY, columns, prepare=True)
        return meter.rate(job.size // 1000 * 1000)


SCENARIOS: dict[str, Scenario] = {
    "steps_async": steps_async,
    "steps_sync": steps_sync,
    "steps_100": coalesced_steps(100),
    "steps_1000": coalesced_steps(1000),
    "relaxed_async": steps_async,
    "relaxed_sync": steps_sync,
    "relaxed_100": coalesced_steps(100),
    "no_step": no_step_workflows,
    "start_to_result": start_to_result,
    "start_many": start_many,
}
