"""What a schedule is made of: sessions of one database; a test says what each does, and when it waits.

A schedule never sleeps to let something happen: it looks, with a deadline, whether a session waits for a lock.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import psycopg

from dbosflow._sessions import WORKER, startup, wanted
from dbosflow._store import step, worker, workflow
from dbosflow._store.batch import BatchResult, write_batch
from dbosflow._store.batch_rows import (
    AwaitRow,
    BatchRows,
    BlockRow,
    ContinueRow,
    EndRow,
    RecordRow,
    RunRow,
    StartRow,
    SuspendRow,
    TailRow,
    parameters,
    shape_of,
)
from dbosflow._store.carried import NOTHING_CARRIED, Carried
from dbosflow._store.waiter import by_topic
from dbosflow._store.worker import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from dbosflow._store.step import History
    from dbosflow._store.waiter import Target
    from dbosflow._store.workflow import Claimed

SCHEMA = "dbosflow"
NAME = "flow"
ELSEWHERE = ProcessIdentity("elsewhere", None, None, 1, None)
PATIENCE = 60.0
"""Seconds in which what must happen does."""


@dataclass
class Slice:
    """One run's part of a batch, row by row."""

    workflow_id: str
    epoch: int = 1
    records: list[RecordRow] = field(default_factory=list)
    blocks: list[BlockRow] = field(default_factory=list)
    ends: list[EndRow] = field(default_factory=list)
    suspends: list[SuspendRow] = field(default_factory=list)
    awaits: list[AwaitRow] = field(default_factory=list)
    continues: list[ContinueRow] = field(default_factory=list)

    def record(self, key: str, output: str | None = "1", *, seq: int = 0) -> Slice:
        """A step's outcome."""
        self.records.append(
            RecordRow(
                workflow_id=self.workflow_id,
                key=key,
                kind="step",
                epoch=self.epoch,
                seq=seq,
                turn=seq,
                attempt=f"{self.epoch}.1",
                output=output,
                error=None,
                child_id=None,
                delay=None,
                elapsed=0.0,
                loop_key=None,
                loop_offset=None,
                loop_next=None,
            )
        )
        return self

    def values(self, offset: int, count: int = 1, *, key: str = "out", kind: str = "values") -> Slice:
        """A block of a stream."""
        values = json.dumps(list(range(offset, offset + count))) if kind == "values" else None
        self.blocks.append(
            BlockRow(
                workflow_id=self.workflow_id,
                key=key,
                offset=offset,
                value_count=count,
                kind=kind,
                values=values,
                size=len(values or ""),
                producer="",
                producer_seq=offset,
                attempt=None,
                epoch=self.epoch,
                checksum=1,
                turn=0,
            )
        )
        return self

    def closed(self, offset: int, *, key: str = "out") -> Slice:
        """A terminal frame."""
        return self.values(offset, key=key, kind="complete")

    def end(self, status: str = "succeeded", output: str | None = '"done"') -> Slice:
        """The end of the workflow."""
        self.ends.append(EndRow(self.workflow_id, self.epoch, status, output, None))
        return self

    def suspended(self, *targets: Target, delay: float | None = None) -> Slice:
        """The workflow leaves memory until ``delay`` seconds from now, or for its targets."""
        self.suspends.append(SuspendRow(self.workflow_id, self.epoch, delay))
        rows = by_topic(self.workflow_id, targets)
        self.awaits += [AwaitRow(self.workflow_id, topic, *target) for topic, target in rows.items()]
        return self

    def continued(self, iteration: int, carried: Carried = NOTHING_CARRIED, *, seq: int = 0) -> Slice:
        """The end of an iteration, and the record with which the next one begins."""
        self.record(f"~{iteration}", carried.text(), seq=seq)
        self.records[-1] = self.records[-1]._replace(kind="continued", attempt=None)
        self.continues.append(ContinueRow(self.workflow_id, self.epoch, iteration, f'{{"n": {iteration}}}'))
        return self


def batch(*slices: Slice, starts: tuple[str, ...] = ()) -> BatchRows:
    """The rows of one statement."""
    rows = BatchRows(
        starts=[StartRow(workflow_id, NAME, "", 0, "{}", None, None, None, owned=True) for workflow_id in starts]
    )
    for part in slices:
        rows.runs.append(RunRow(part.workflow_id, part.epoch))
        rows.records += part.records
        rows.blocks += part.blocks
        rows.ends += part.ends
        rows.suspends += part.suspends
        rows.awaits += part.awaits
        rows.continues += part.continues
        first: dict[str, int] = {}
        for block in part.blocks:
            first.setdefault(block.key, block.offset)
        rows.tails += [TailRow(part.workflow_id, key, offset) for key, offset in first.items()]
    return rows


def columns(rows: BatchRows) -> dict[str, tuple[Any, ...]]:
    """The statement's parameters for these rows, as arrays."""
    tables = rows.tables()
    arrays = (column for table in tables.values() for column in zip(*table, strict=True))
    return dict(zip(parameters(shape_of(tables)), arrays, strict=True))


def only_row(rows: BatchRows) -> dict[str, Any]:
    """The parameters for rows of which there is one of each type."""
    return {name: value for name, (value,) in columns(rows).items()}


ROWS: dict[str, Callable[[str, int], BatchRows]] = {
    "record": lambda workflow_id, _: batch(Slice(workflow_id).record("alone")),
    "value": lambda workflow_id, offset: batch(Slice(workflow_id).values(offset)),
    "start": lambda *_: batch(starts=("new",)),
    "end": lambda workflow_id, _: batch(Slice(workflow_id).end()),
}
"""Each kind of row, alone in its batch: of a workflow, whose stream has an end."""


class WorkerLease:
    """A worker lease as the protocol knows it: a row, and a connection with its settings."""

    def __init__(self, worker_id: UUID, connection: psycopg.AsyncConnection[Any]) -> None:
        self.id = worker_id
        self.connection = connection

    async def write(self, *slices: Slice, starts: tuple[str, ...] = ()) -> BatchResult:
        """Sends one batch."""
        return await self.send(batch(*slices, starts=starts))

    async def send(self, rows: BatchRows) -> BatchResult:
        """Sends a batch as it is."""
        return await write_batch(self.connection, rows, self.id, SCHEMA)

    async def start(self, *workflow_ids: str) -> Self:
        """Starts workflows, which it then owns at epoch 1."""
        assert (await self.write(starts=workflow_ids)).started == set(workflow_ids)
        return self

    async def claim(self, limit: int = 10) -> list[Claimed]:
        """Claims what is queued."""
        return await workflow.claim(self.connection, SCHEMA, worker_id=self.id, queue="", names=[NAME], limit=limit)


class Database:
    """A database under test, and the sessions of one schedule."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._watching = await self.connect()
        self.admin = await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def connect(self, *special: Mapping[str, str], autocommit: bool = True) -> psycopg.AsyncConnection[Any]:
        """A session, set as the engine's. Without ``autocommit`` what it does is under way until it commits."""
        settings = wanted(*special, idle=10.0 if WORKER in special else None)
        del settings["transaction_timeout"]  # only newer servers have it
        parameters: dict[str, Any] = startup(settings)
        connection = await psycopg.AsyncConnection.connect(self.url, autocommit=autocommit, **parameters)
        self._resources.push_async_callback(connection.close)
        return connection

    async def lease(self, worker_id: UUID | None = None) -> WorkerLease:
        """The lease of a live worker; with ``worker_id`` another connection of that one."""
        connection = await self.connect(WORKER)
        if worker_id is not None:
            return WorkerLease(worker_id, connection)
        lease = WorkerLease(uuid4(), connection)
        await worker.register(connection, SCHEMA, worker_id=lease.id, lease=10.0, process=ELSEWHERE, version="0")
        return lease

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        cursor = await self.admin.execute(query.encode(), values)
        return [] if cursor.description is None else await cursor.fetchall()

    async def waiting(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Waits until a session waits for a lock."""
        query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        async with asyncio.timeout(PATIENCE):
            while True:
                cursor = await self._watching.execute(query, (connection.info.backend_pid,))
                if await cursor.fetchone() == (True,):
                    return

    async def hold_key(self, workflow_id: str, key: str = "held") -> psycopg.AsyncConnection[Any]:
        """A session that has that record under way: another writer of it has taken its snapshot and waits."""
        session = await self.connect(autocommit=False)
        await session.execute(
            """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, started_at)
               VALUES (%s, %s, 'step', 0, 0, 0, now())""",
            (workflow_id, key),
        )
        return session

    async def reclaim(self, *workers: WorkerLease) -> set[UUID]:
        """The first statement of a death: which of those workers are dead now."""
        surveyed = await worker.survey(self.admin, SCHEMA)
        leases = [one for one in surveyed if one.id in {worker.id for worker in workers}]
        return await worker.mark_dead(self.admin, SCHEMA, leases, "expired")

    async def requeue(self, max_recoveries: int = 10) -> dict[str, str]:
        """The second: what went back to its queue, or was parked."""
        rows = await workflow.requeue(self.admin, SCHEMA, max_recoveries=max_recoveries)
        return {row["id"]: row["status"] for row in rows}

    async def history(self, workflow_id: str) -> History:
        """What a new owner loads."""
        return (await step.histories(self.admin, SCHEMA, [workflow_id]))[workflow_id]

    async def workflow(self, workflow_id: str) -> tuple[Any, ...]:
        """Status, owner and epoch."""
        rows = await self.rows("SELECT status, worker_id, epoch FROM dbosflow.workflow WHERE id = %s", workflow_id)
        return rows[0] if rows else ()

    async def stored(self, workflow_id: str) -> tuple[set[str], list[tuple[int, int, str]]]:
        """The keys of its records, and the blocks of its stream."""
        keys = await self.rows("SELECT key FROM dbosflow.step WHERE workflow_id = %s", workflow_id)
        blocks = await self.rows(
            'SELECT "offset", count, kind FROM dbosflow.stream_block WHERE workflow_id = %s ORDER BY "offset"',
            workflow_id,
        )
        return {key for (key,) in keys}, [(offset, count, kind) for offset, count, kind in blocks]


async def cancel(
    connection: psycopg.AsyncConnection[Any], workflow_id: str, *, children: bool = True, reason: str | None = None
) -> list[dict[str, Any]]:
    """Requests the cancellation of one workflow; returns what the statement does."""
    return await workflow.cancel_many(connection, SCHEMA, [workflow_id], children=children, reason=reason)
