"""Stops this process, or its connection, at one point: wraps what sends the statements that make something durable.

Each statement's points are noted before it is sent, so that a run without a trap lists them. A trap springs once.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

from dbosflow._runtime.journal import committer, transactions
from dbosflow._store import message, stream, waiter, workflow
from tests.proof.points import How, Point, of_answer, of_append, of_batch, of_send, of_transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from psycopg import AsyncConnection

_QUEUED = b"SELECT id FROM dbosflow.workflow WHERE status = 'queued' AND queue = %s AND name = ANY(%s)"
_DUE = (
    b"SELECT id FROM dbosflow.workflow WHERE deadline_at <= now() AND cancel_requested_at IS NULL AND ended_at IS NULL"
)
_OWNED_BY_DEAD = (
    b"SELECT w.id FROM dbosflow.workflow w JOIN dbosflow.worker k ON k.id = w.worker_id WHERE k.state = 'dead'"
)


@dataclass(frozen=True)
class Trap:
    """A point of one run, and what goes wrong at it."""

    point: Point
    how: How

    def within(self, run: str) -> Trap:
        """The same in one run."""
        return Trap(self.point.within(run), self.how)

    def __str__(self) -> str:
        return f"{self.point}, {self.how}"


class Injection:
    """What stands between the engine of this process and its statements. ``log`` takes a line a point."""

    def __init__(self, log: Path, trap: Trap | None) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._trap = trap

    def install(self) -> None:
        """From now on everything that this process makes durable passes here."""
        self._wrap(committer, "write_batch", lambda connection, rows, *_: of_batch(rows))
        self._wrap(stream, "append", lambda connection, schema, rows, **_: of_append(rows))
        self._wrap(message, "send", lambda connection, schema, rows, **_: of_send(rows))
        self._wrap(message, "resolve", lambda connection, schema, values: of_answer(values))
        self._wrap(workflow, "enqueue", lambda connection, schema, rows: (Point("start", r.workflow_id) for r in rows))
        self._wrap(workflow, "cancel_many", lambda connection, schema, ids, **_: (Point("cancel", one) for one in ids))
        self._wrap(
            workflow, "cancel_children", lambda connection, schema, parent, *_: [Point("cancel", parent, "children")]
        )
        self._wrap(workflow, "release", lambda connection, schema, worker, runs: (Point("release", r[0]) for r in runs))
        self._wrap(transactions, "send_commit", lambda _, rows, *__: of_transaction(rows))
        for wakes in ("wake", "wake_by_topic", "wake_due"):
            self._wrap(waiter, wakes, lambda *_, by=wakes: [Point("wake", "", by)])
        self._wrap(workflow, "expire", self._expired)
        self._wrap(workflow, "claim", self._claimed)
        self._wrap(workflow, "requeue", self._requeued)

    def _wrap(self, module: Any, name: str, points_of: Callable[..., Any]) -> None:
        send = getattr(module, name)

        async def passing(connection: AsyncConnection[Any], *args: Any, **kwargs: Any) -> Any:
            points = points_of(connection, *args, **kwargs)
            points = {*(await points if inspect.iscoroutine(points) else points)}
            self._note(*([*point] for point in points))
            if self._trap is None or self._trap.point not in points:
                return await send(connection, *args, **kwargs)
            how, self._trap = self._trap.how, None
            self._note(["sprung", how])
            return await _spring(how, connection, lambda: send(connection, *args, **kwargs))

        setattr(module, name, passing)

    async def _claimed(
        self, connection: AsyncConnection[Any], _: str, *, queue: str, names: list[str], **__: Any
    ) -> Iterable[Point]:
        """What a claim may take, asked before it: by then somebody else may have it, which is no harm."""
        cursor = await connection.execute(_QUEUED, (queue, names))
        return [Point("claim", workflow_id) for (workflow_id,) in await cursor.fetchall()]

    async def _expired(self, connection: AsyncConnection[Any], _: str, **__: Any) -> Iterable[Point]:
        cursor = await connection.execute(_DUE)
        return [Point("expire", workflow_id) for (workflow_id,) in await cursor.fetchall()]

    async def _requeued(self, connection: AsyncConnection[Any], _: str, **__: Any) -> Iterable[Point]:
        cursor = await connection.execute(_OWNED_BY_DEAD)
        return [Point("requeue", workflow_id) for (workflow_id,) in await cursor.fetchall()]

    def _note(self, *lines: list[Any]) -> None:
        if lines:
            os.write(self._log, "".join(json.dumps(line) + "\n" for line in lines).encode())


async def _spring(how: How, connection: AsyncConnection[Any], send: Callable[[], Awaitable[Any]]) -> Any:
    if how is How.UNSENT:
        _die()
    if how in {How.SENT, How.CUT}:
        sending = asyncio.ensure_future(send())
        await _until_on_the_wire(connection, sending)
        if how is How.SENT:
            _die()
        _break(connection)
        return await sending
    await send()
    if how is How.COMMITTED:
        _die()
    _break(connection)
    if inspect.isawaitable(closing := connection.close()):
        await closing
    raise psycopg.OperationalError("the connection was cut before the answer")


async def _until_on_the_wire(connection: AsyncConnection[Any], sending: asyncio.Future[Any]) -> None:
    connection.prepare_threshold = None  # or what is sent first would be a PREPARE
    while connection.pgconn.transaction_status != TransactionStatus.ACTIVE or connection.pgconn.flush():
        if sending.done():
            return
        await asyncio.sleep(0)


def _break(connection: AsyncConnection[Any]) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
