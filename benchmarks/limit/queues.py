"""A queue where nothing else waits: dbosflow's own statements and hints, in the same order, by psycopg alone.

A row, a claim and an end, a commit each, with a notification behind the first and the last, and a fetch of the result.
Nothing is decided between them: no lease is renewed, no lost hint is made good, no body is run.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from dbosflow import Engine
from dbosflow._records.ids import new_id
from dbosflow._runtime.process.identity import this_process
from dbosflow._sessions import wanted
from dbosflow._store import worker, workflow
from dbosflow._store.batch import write_batch
from dbosflow._store.batch_rows import BatchRows, EndRow, RunRow
from dbosflow._store.notify import PARTS, listen, queue_topic, topics_of, workflow_topic
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.connection import Connection

_SCHEMA = "dbosflow"
_QUEUE, _NAME = "default", "nothing"
_LEASE = 3600.0


def idle(job: Job) -> Figures:
    """From the enqueue to the result, in two processes."""
    return asyncio.run(_idle(job))


async def _idle(job: Job) -> Figures:
    async with Engine(job.url, executes=False):
        pass  # for the tables
    took = []
    with half(_work, job.url) as other:
        async with _connected(job.url) as connection, _connected(job.url) as listener:
            await listen(listener, _SCHEMA, PARTS)
            other.receive()
            for _ in range(job.size + 3):
                await asyncio.sleep(0.05)
                took.append(await _result_after(connection, listener))
        other.kill()
    return delays(took[3:])


async def _result_after(connection: psycopg.AsyncConnection[Any], listener: psycopg.AsyncConnection[Any]) -> float:
    workflow_id, began = new_id(), time.monotonic()
    row = workflow.Enqueued(workflow_id, _NAME, _QUEUE, 0, "{}")
    await workflow.enqueue_and_notify(connection, _SCHEMA, row, [queue_topic(_QUEUE)])
    async for hint in listener.notifies():
        if workflow_topic(workflow_id) in topics_of(hint.payload):
            break
    found = await workflow.outcomes(connection, _SCHEMA, [workflow_id])
    assert found[workflow_id].status is WorkflowStatus.SUCCEEDED
    return time.monotonic() - began


def _work(pipe: Connection, url: str) -> None:
    asyncio.run(_serve(pipe, url))


async def _serve(pipe: Connection, url: str) -> None:
    async with _connected(url) as connection, _connected(url) as listener:
        me, worker_id = this_process(), uuid4()
        await worker.register(connection, _SCHEMA, worker_id=worker_id, lease=_LEASE, process=me, version="")
        await listen(listener, _SCHEMA, PARTS)
        pipe.send("ready")
        which: dict[str, Any] = {"worker_id": worker_id, "queue": _QUEUE, "names": [_NAME], "limit": 200}
        async for hint in listener.notifies():
            if queue_topic(_QUEUE) not in topics_of(hint.payload):
                continue
            for one in await workflow.claim(connection, _SCHEMA, **which):
                end = EndRow(one.id, one.epoch, WorkflowStatus.SUCCEEDED, "null", None)
                rows = BatchRows(runs=[RunRow(one.id, one.epoch)], ends=[end], topics=[workflow_topic(one.id)])
                assert (await write_batch(connection, rows, worker_id, _SCHEMA)).written


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A session with dbosflow's settings, which decide the plans."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for name, value in wanted().items():
            await connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield connection


SCENARIOS: dict[str, Scenario] = {"queue_idle": idle}
