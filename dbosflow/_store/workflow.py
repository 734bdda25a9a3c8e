"""The table ``workflow``: one row per execution."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.pins import queue_of
from dbosflow._store.cancel_request import CancelRequest
from dbosflow._store.notify import behind
from dbosflow._store.payloads import codecs_of, sealed, sealed_values
from dbosflow._store.queries import fetch_all, fetch_hot, fetch_hot_and_follow, flush_seen
from dbosflow._store.start_options import NO_OPTIONS, Dedup, StartOptions
from dbosflow.serde import size_of
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows
    from dbosflow.codecs.chain import Codecs

_TABLE = "workflow"
_CLAIM = "claim"
_ROW_BYTES = 200
"""About what a row has besides its payloads."""


class FirstMessage(NamedTuple):
    """The message that a workflow is started with."""

    key: str
    """The key of its inbox."""
    text: str
    producer: str

    @property
    def values(self) -> str:
        """The block's values as a JSON array."""
        return f"[{self.text}]"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A workflow to be inserted for any worker to claim."""

    workflow_id: str
    name: str
    queue: str
    priority: int
    input: str
    input_streams: tuple[str, ...] = ()
    options: StartOptions | None = None
    message: FirstMessage | None = None
    dedup: Dedup | None = None
    """Its key, and what to do if another workflow has that: then the start goes through ``dedup.py``."""

    @property
    def size(self) -> int:
        """Its rough size in a statement, in bytes."""
        return _ROW_BYTES + size_of(self.input) + (0 if self.message is None else size_of(self.message.text))


@dataclass(frozen=True, slots=True)
class Started:
    """The row of a workflow id that was taken."""

    id: str
    name: str
    status: WorkflowStatus
    worker_id: UUID | None
    epoch: int
    input: str
    parent_id: str | None
    parent_key: str | None
    """The key of the workflow's start among its parent's records."""
    input_streams: str | None
    """The keys of the inputs, as declared at the start: a JSON array."""
    iteration: int | None
    """The iteration that it is in, whose arguments ``input`` has; ``None``: it was never continued as new."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The keys in ``input_streams``."""
        return _keys(self.input_streams)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A workflow that a worker has just claimed."""

    id: str
    name: str
    queue: str
    epoch: int
    input: str
    input_streams: str | None
    """The keys of the inputs, as declared at the start: a JSON array."""
    recoveries: int
    request: str | None
    """The request to end it, as JSON."""
    is_child: bool
    remaining: float | None = None
    """Seconds until its deadline."""

    @property
    def cancel_request(self) -> CancelRequest | None:
        """The request to end the workflow, if there is one."""
        return CancelRequest.of(self.request)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The keys in ``input_streams``."""
        return _keys(self.input_streams)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A workflow's status, with its payloads as JSON text."""

    id: str
    status: WorkflowStatus
    output: str | None
    error: str | None


async def enqueue(connection: AsyncConnection[Any], schema: str, rows: Sequence[Enqueued]) -> set[str]:
    """Inserts queued workflows; returns the ids that were new."""
    sections, values = _enqueued(codecs_of(connection), rows)
    inserted = await fetch_hot(connection, schema, _TABLE, "enqueue", sections=sections, **values)
    new = {workflow_id for (workflow_id,) in inserted}
    await flush_seen(connection, schema, [row.workflow_id for row in rows if row.workflow_id not in new])
    return new


async def enqueue_and_notify(
    connection: AsyncConnection[Any], schema: str, row: Enqueued, topics: Sequence[str]
) -> tuple[bool, bool]:
    """Inserts a queued workflow, and sends hints behind it, on a connection on which statements are prepared.

    Returns whether the workflow is new, and whether the hints were sent: they may fail alone.
    """
    sections, values = _enqueued(codecs_of(connection), [row])
    inserted, notified = await fetch_hot_and_follow(
        connection, schema, _TABLE, "enqueue", behind(schema, topics), sections=sections, **values
    )
    if not inserted:
        await flush_seen(connection, schema, [row.workflow_id])
    return bool(inserted), notified


def _enqueued(codecs: Codecs, rows: Sequence[Enqueued]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The sections of the statement that these rows need, and its values."""
    values: dict[str, Any] = {
        "ids": [row.workflow_id for row in rows],
        "names": [row.name for row in rows],
        "queues": [row.queue for row in rows],
        "priorities": [row.priority for row in rows],
        "inputs": [sealed(codecs, row.input) for row in rows],
        "input_streams": [keys_text(row.input_streams) for row in rows],
    }
    sections: tuple[str, ...] = ()
    if first := [(row.workflow_id, row.message) for row in rows if row.message is not None]:
        sections = ("message",)
        values |= {
            "message_ids": [workflow_id for workflow_id, _ in first],
            "message_keys": [message.key for _, message in first],
            "message_values": [sealed_values(codecs, message.values) for _, message in first],
            "message_bytes": [size_of(message.values) for _, message in first],
            "message_producers": [message.producer for _, message in first],
        }
    if sections or any(row.options is not None for row in rows):
        sections = (*sections, "options")
        columns = zip(*(row.options or NO_OPTIONS for row in rows), strict=True)
        values |= {f"option_{name}": column for name, column in zip(StartOptions._fields, columns, strict=True)}
    return sections, values


def keys_text(keys: Sequence[str]) -> str | None:
    """Stream keys in the form for the statements that start a workflow."""
    return json.dumps(keys) if keys else None


def _keys(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()


async def started(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> dict[str, Started]:
    """The rows of these ids."""
    rows = await fetch_all(connection, schema, _TABLE, "started", ids=list(ids))
    return {row["id"]: Started(**{**row, "status": WorkflowStatus(row["status"])}) for row in rows}


async def claim(
    connection: AsyncConnection[Any],
    schema: str,
    *,
    worker_id: UUID,
    queue: str,
    names: Sequence[str],
    limit: int,
    suspects: bool = True,
) -> list[Claimed]:
    """Claims up to ``limit`` queued workflows for a worker that is still live, or one of the ``suspects``.

    None of a queue with limits: see ``queue.claim``.
    """
    which: dict[str, Any] = {"queue": queue, "limits": queue_of(queue), "names": names, "limit": limit}
    which |= {"suspects": suspects}
    rows = await fetch_hot(connection, schema, _CLAIM, "claim", worker_id=worker_id, **which)
    return [Claimed(*row) for row in rows]


async def adopt(
    connection: AsyncConnection[Any],
    schema: str,
    *,
    worker_id: UUID,
    known: Sequence[str],
    queues: Sequence[str] | None = None,
    workflow_id: str | None = None,
) -> list[Claimed]:
    """Begins a new epoch of workflows that a worker owns, except the ``known``: those of queues, or a single one."""
    which = {"queues": queues, "workflow_id": workflow_id}
    rows = await fetch_all(connection, schema, _TABLE, "adopt", worker_id=worker_id, known=list(known), **which)
    return [Claimed(**row) for row in rows]


class RowLockedError(Exception):
    """A workflow's row is locked, so its epoch stays for now."""


async def renew_epoch(
    connection: AsyncConnection[Any], schema: str, *, workflow_id: str, worker_id: UUID, epoch: int
) -> int | None:
    """Begins a new epoch of a run for its owner; ``None`` if the caller is not the owner.

    Raises:
        RowLockedError: a transaction of the run is being committed just now.
    """
    (row,) = await fetch_all(
        connection, schema, _TABLE, "renew_epoch", workflow_id=workflow_id, worker_id=worker_id, epoch=epoch
    )
    if row["epoch"] is None and row["owned"]:
        raise RowLockedError(workflow_id)
    return None if row["epoch"] is None else int(row["epoch"])


async def release(
    connection: AsyncConnection[Any], schema: str, worker_id: UUID, runs: Sequence[tuple[str, int]]
) -> dict[str, str]:
    """Returns runs of a live worker, by id and epoch, to their queues; returns their ids, with the queues.

    A run of which a transaction is being committed just now is not among them.
    """
    ids, epochs = [workflow_id for workflow_id, _ in runs], [epoch for _, epoch in runs]
    rows = await fetch_all(connection, schema, _TABLE, "release", worker_id=worker_id, ids=ids, epochs=epochs)
    return {row["id"]: row["queue"] for row in rows}


async def put_off(
    connection: AsyncConnection[Any],
    schema: str,
    *,
    workflow_id: str,
    worker_id: UUID,
    epoch: int,
    error: str,
    was_requested: bool,
) -> bool:
    """Has a workflow of a live worker wait for a time; returns whether it does. Not while its row is locked.

    The ``error`` is stored as it is: it is for those who cannot decode anything. With a cancellation that the run did
    not know of, unless ``was_requested``, the workflow is due at once.
    """
    which = {"workflow_id": workflow_id, "worker_id": worker_id, "epoch": epoch}
    more = {"error": error, "was_requested": was_requested}
    return bool(await fetch_all(connection, schema, _TABLE, "put_off", **which, **more))


async def requeue(connection: AsyncConnection[Any], schema: str, *, max_recoveries: int) -> Rows:
    """Returns the runs of dead workers to their queues, or parks them; returns rows of ``id, queue, status``."""
    return await fetch_all(connection, schema, _TABLE, "requeue", max_recoveries=max_recoveries)


async def cancel_many(
    connection: AsyncConnection[Any],
    schema: str,
    ids: Sequence[str],
    *,
    children: bool,
    reason: str | None,
    statuses: Sequence[str] | None = None,
) -> Rows:
    """Requests the cancellation of workflows: of those with ``statuses``, if these are given.

    Returns rows of ``id, status, queue``, also of the children whose cancellation it has requested.
    """
    which = {"ids": list(ids), "statuses": None if statuses is None else list(statuses), "parent_id": None}
    return await fetch_all(connection, schema, _TABLE, "cancel", **which, children=children, reason=reason)


async def cancel_children(
    connection: AsyncConnection[Any], schema: str, workflow_id: str, reason: str | None = None
) -> Rows:
    """Requests the cancellation of a workflow's children, unless its own excluded them; returns the same rows."""
    which = {"parent_id": workflow_id, "children": True, "reason": reason}
    return await fetch_all(connection, schema, _TABLE, "cancel", ids=[], statuses=None, **which)


async def expire(connection: AsyncConnection[Any], schema: str, *, limit: int) -> Rows:
    """Requests the end of up to ``limit`` workflows whose deadline has passed; returns the same rows."""
    return await fetch_all(connection, schema, _TABLE, "expire", limit=limit)


async def next_due(connection: AsyncConnection[Any], schema: str) -> float | None:
    """Seconds until the earliest deadline, 0 or less if it has passed; ``None`` if there is none."""
    seconds: float | None = (await fetch_all(connection, schema, _TABLE, "next_due"))[0]["seconds"]
    return seconds


async def resume(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> Rows:
    """Returns blocked workflows to their queues; returns rows of ``id, status, queue``: the queue only if it was."""
    return await fetch_all(connection, schema, _TABLE, "resume", ids=list(ids))


async def cancel_requests(connection: AsyncConnection[Any], schema: str, worker_id: UUID) -> dict[str, CancelRequest]:
    """The runs of a worker whose cancellation was requested, or whose deadline has passed."""
    rows = await fetch_all(connection, schema, _TABLE, "cancel_requests", worker_id=worker_id)
    return {row["id"]: CancelRequest(row["reason"], row["timed_out"]) for row in rows}


async def outcomes(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> dict[str, Outcome]:
    """The statuses and outcomes of these workflows."""
    rows = await fetch_hot(connection, schema, _TABLE, "outcomes", ids=ids)
    return {row[0]: Outcome(row[0], WorkflowStatus(row[1]), *row[2:]) for row in rows}
