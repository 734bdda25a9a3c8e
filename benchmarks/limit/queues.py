"""A queue where nothing else waits: dbosflow's own statements and hints, in the same order, by blocking psycopg alone.

A row, a claim and an end, a commit each, with a notification behind the first and the last, and a fetch of the result.
Nothing is decided between them: no lease is renewed, no lost hint is made good, no body is run.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

import psycopg
from psycopg import sql

from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from dbosflow import Engine
from dbosflow._records.ids import new_id
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.process.identity import this_process
from dbosflow._sessions import WORKER, wanted
from dbosflow._store import worker, workflow
from dbosflow._store.batch import write_batch
from dbosflow._store.batch_rows import BatchRows, EndRow, RunRow
from dbosflow._store.notify import PARTS, channel, part_of, queue_topic, topics_of, workflow_topic
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from multiprocessing.connection import Connection
    from uuid import UUID

    from psycopg.abc import PQGen

T = TypeVar("T")


_SCHEMA = "dbosflow"
_QUEUE, _NAME = "default", "nothing"
_LEASE = 3600.0
_WORKFLOWS = [part for part in PARTS if part.startswith("w")]
"""Where the hints about workflows go: each process listens to what concerns it."""


class _Blocking:
    """A blocking connection, as the statements of ``_store`` take one: each wait is over when it returns."""

    prepare_threshold = 0

    def __init__(self, connection: psycopg.Connection) -> None:
        self.pgconn = connection.pgconn
        self._connection = connection

    async def wait(self, generator: PQGen[T]) -> T:
        return self._connection.wait(generator)

    def __call__(self, statement: Callable[..., Coroutine[Any, Any, T]], *args: Any, **values: Any) -> T:
        """What a statement returns."""
        return drive(statement(self, _SCHEMA, *args, **values))


def idle(job: Job) -> Figures:
    """From the enqueue to the result, in two processes."""
    with Engine(job.url, executes=False):
        pass  # for the tables
    took = []
    with half(_work, job.url) as other:
        with _connected(job.url) as connection, _listening(job.url, _WORKFLOWS) as listener:
            other.receive()
            for _ in range(job.size + 3):
                time.sleep(0.05)
                took.append(_seconds_to_result(_Blocking(connection), listener))
        other.kill()
    return delays(took[3:])


def _seconds_to_result(ask: _Blocking, listener: psycopg.Connection) -> float:
    workflow_id, began = new_id(), time.monotonic()
    row = workflow.Enqueued(workflow_id, _NAME, _QUEUE, 0, "{}")
    ask(workflow.enqueue_and_notify, row, [queue_topic(_QUEUE)])
    for hint in listener.notifies():
        if workflow_topic(workflow_id) in topics_of(hint.payload):
            break
    found = ask(workflow.outcomes, [workflow_id])
    assert found[workflow_id].status is WorkflowStatus.SUCCEEDED
    return time.monotonic() - began


def _work(pipe: Connection, url: str) -> None:
    worker_id = asyncio.run(_registered(url))
    with _connected(url) as connection, _listening(url, [part_of(queue_topic(_QUEUE))]) as listener:
        ask = _Blocking(connection)
        pipe.send("ready")
        for _ in listener.notifies():
            for one in ask(workflow.claim, worker_id=worker_id, queue=_QUEUE, names=[_NAME], limit=200):
                end = EndRow(one.id, one.epoch, WorkflowStatus.SUCCEEDED, "null", None)
                rows = BatchRows(runs=[RunRow(one.id, one.epoch)], ends=[end], topics=[workflow_topic(one.id)])
                assert drive(write_batch(cast("Any", ask), rows, worker_id, _SCHEMA)).written


async def _registered(url: str) -> UUID:
    worker_id = uuid4()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await worker.register(
            connection, _SCHEMA, worker_id=worker_id, lease=_LEASE, process=this_process(), version=""
        )
    return worker_id


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    """A session with dbosflow's settings, which decide the plans."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in wanted(WORKER).items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield connection


@contextmanager
def _listening(url: str, parts: Iterable[str]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        for part in parts:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel(_SCHEMA, part))))
        yield connection


SCENARIOS: dict[str, Scenario] = {"queue_idle": idle}
