"""A worker as the journal drives it, but without an engine: claims, batches, lost acknowledgements, late copies."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from dbosflow._store import step
from dbosflow._store.batch import is_durable, write_batch
from dbosflow._store.batch_rows import RecordRow
from tests.protocol.schedules import SCHEMA, Database, Slice, WorkerLease, batch

if TYPE_CHECKING:
    import random

    from dbosflow._store.batch import BatchResult
    from dbosflow._store.batch_rows import BatchRows

RECORDS = 12
"""After about so many a run ends."""
LARGE = f'"{os.urandom(200_000).hex()}"'
"""A record that takes some time between its statement's snapshot and its commit."""


@dataclass
class Ledger:
    """The answers that workers got, to be compared with the tables, and what must never have happened."""

    acknowledged: set[tuple[str, str, int]] = field(default_factory=set)
    refused: set[tuple[str, str, int]] = field(default_factory=set)
    impossible: list[str] = field(default_factory=list)
    batches: int = 0
    lost: int = 0
    copies: int = 0
    started: int = 0
    ended: int = 0

    def decide(self, rows: BatchRows, *, written: bool) -> None:
        """A batch's fate is known."""
        (self.acknowledged if written else self.refused).update(
            (row.workflow_id, row.key, row.epoch) for row in map(RecordRow._make, rows.records)
        )


@dataclass
class _Run:
    epoch: int
    seq: int
    tail: int
    ending: bool = False


class WorkerModel:
    """One worker process after the other, in one task."""

    def __init__(self, db: Database, ledger: Ledger, chance: random.Random) -> None:
        self._db = db
        self._ledger = ledger
        self._chance = chance
        self._runs: dict[str, _Run] = {}
        self._sent: deque[tuple[WorkerLease, BatchRows]] = deque(maxlen=30)

    async def work(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set."""
        lease = await self._db.lease()
        while not stop.is_set():
            await self._claim(lease)
            if not await self._write(lease):
                self._runs.clear()
                lease = await self._db.lease()
            if self._sent and self._chance.random() < 0.05:
                await self._late_copy()

    async def _claim(self, lease: WorkerLease) -> None:
        claimed = await lease.claim(2) if len(self._runs) < 6 else []
        histories = await step.histories(lease.connection, SCHEMA, [one.id for one in claimed])
        for one in claimed:
            history = histories[one.id]
            seqs = sorted(record.seq for record in history.records.values())
            if seqs != list(range(len(seqs))) or history.closed:
                self._ledger.impossible.append(f"history of {one.id}: {seqs}, closed {history.closed}")
            self._runs[one.id] = _Run(one.epoch, len(seqs), history.tails.get("out", 0))

    async def _write(self, lease: WorkerLease) -> bool:
        """Writes one batch; whether the worker is live."""
        rows = self._batch()
        self._ledger.batches += 1
        while rows.runs or rows.starts:
            result = await self._send(lease, rows)
            if result is None or result.written:
                self._acknowledge(rows, result)
                return True
            if not result.leased:
                self._ledger.lost += 1
                self._ledger.decide(rows, written=False)
                return False
            for workflow_id in {workflow_id for workflow_id, *_ in rows.runs} - result.mine:
                self._ledger.lost += 1
                del self._runs[workflow_id]
            if result.moved & result.mine:
                self._ledger.impossible.append(f"moved: {result.moved}")
            self._ledger.decide(rows, written=False)
            rows = self._batch()
        return True

    def _batch(self) -> BatchRows:
        slices = []
        for workflow_id, run in self._runs.items():
            if self._chance.random() < 0.8:
                output = LARGE if self._chance.random() < 0.05 else "1"
                part = Slice(workflow_id, run.epoch).record(f"s{run.seq}", output, seq=run.seq)
                part.values(run.tail, self._chance.randint(1, 4))
                run.ending = run.seq >= RECORDS and self._chance.random() < 0.3
                if run.ending:
                    part.closed(run.tail + part.blocks[0].value_count).end()
                slices.append(part)
        starts = tuple(f"w{self._ledger.ended + self._chance.randint(0, 3)}" for _ in range(len(self._runs) < 4))
        return batch(*slices, starts=starts)

    @staticmethod
    async def _send_once_more_if_rolled_back(lease: WorkerLease, rows: BatchRows) -> BatchResult:
        """A row that it would have ended was taken meanwhile: all of it was rolled back, as the answer says now."""
        try:
            return await lease.send(rows)
        except psycopg.errors.DivisionByZero:
            return await lease.send(rows)

    async def _send(self, lease: WorkerLease, rows: BatchRows) -> BatchResult | None:
        """What the statement says; ``None``: it was found durable after a lost acknowledgement."""
        self._sent.append((lease, rows))
        if self._chance.random() < 0.1:
            await self._send_and_lose(lease, rows)
            if await is_durable(lease.connection, rows, lease.id, SCHEMA):
                return None
            worker_again = True
        else:
            worker_again = False
        try:
            result = await self._send_once_more_if_rolled_back(lease, rows)
        except psycopg.errors.UniqueViolation:
            if not await is_durable(lease.connection, rows, lease.id, SCHEMA):
                self._ledger.impossible.append(f"a foreign row: {rows.records[0]}")
            return None
        if not result.written and worker_again and await is_durable(lease.connection, rows, lease.id, SCHEMA):
            return None
        return result

    async def _send_and_lose(self, lease: WorkerLease, rows: BatchRows) -> None:
        """The connection is cut at some moment after the statement was sent."""
        self._ledger.copies += 1
        connection = await psycopg.AsyncConnection.connect(self._db.url, autocommit=True)
        sending = asyncio.create_task(write_batch(connection, rows, lease.id, SCHEMA))
        for _ in range(self._chance.randint(2, 12)):
            await asyncio.sleep(0)
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        with suppress(psycopg.Error):
            await sending
        await connection.close()

    async def _late_copy(self) -> None:
        """A copy of a batch whose fate was decided arrives now."""
        self._ledger.copies += 1
        lease, rows = self._sent.popleft()
        if not rows.runs:
            return
        with suppress(psycopg.errors.UniqueViolation):
            if (await lease.send(rows)).written:
                self._ledger.impossible.append(f"a late copy was written: {rows.runs}")

    def _acknowledge(self, rows: BatchRows, result: BatchResult | None) -> None:
        self._ledger.decide(rows, written=True)
        for block in rows.blocks:
            if block.kind == "values":
                run = self._runs[block.workflow_id]
                run.seq, run.tail = run.seq + 1, run.tail + block.value_count
                if run.ending:
                    self._ledger.ended += 1
                    del self._runs[block.workflow_id]
        for workflow_id in result.started if result is not None else ():
            self._ledger.started += 1
            self._runs[workflow_id] = _Run(1, 0, 0)
