"""Forks of workflows: copies of what was durable when a turn began, under other ids. See ``sql/fork.sql``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._records import keys
from dbosflow._records.kinds import RecordKind, is_delivered
from dbosflow._store.payloads import codecs_of, sealed
from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows

_TABLE = "fork"
_SILENT = [kind.value for kind in RecordKind if not is_delivered(kind)]
_FOUND = [kind for kind in _SILENT if kind not in (RecordKind.ATTEMPT, RecordKind.COMPENSATING)]


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """A fork to be made."""

    workflow_id: str
    fork_id: str
    turn: int
    """The first turn that is not copied."""
    step_key: str | None = None
    """The step that begins anew, without the attempts that have failed."""
    output: str | None = None
    """The output that the step gets instead, as JSON."""
    anew: bool = False
    """Whether all steps without an outcome begin anew."""
    queue: str | None = None
    """The queue of the fork; ``None``: that of the workflow."""


@dataclass(frozen=True, slots=True)
class Forked:
    """What came of a fork. Nothing was written if ``truncated``, ``unknown``, ``missing`` or ``taken`` says why."""

    queue: str = ""
    original_queue: str = ""
    truncated: tuple[str, int] | None = None
    """A stream that was trimmed behind the turn, and its first offset that is left."""
    unknown: str | None = None
    """A stream with values of older code, of which nobody knows the turn."""
    missing: str | None = None
    """A child that the fork would wait for, and that was removed."""
    taken: bool = False
    """Whether the id belongs to another workflow, or to another fork."""
    is_earlier: bool = False
    """Whether the turn is one before the current iteration."""
    is_late: bool = False
    """Whether the workflow's deadline had passed before it was started."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operation stands in a workflow's history."""

    status: str
    last: int
    """The last turn before the delivery of a cancel, or before the compensations; -1: there is no record."""
    turn: int | None
    """The turn in which the operation went on record; ``None`` if it did not."""
    kind: str | None
    attempted: bool
    """Whether attempts of it have failed."""


@dataclass(frozen=True, slots=True)
class End:
    """How a workflow has ended."""

    status: str
    error: str | None
    last: int
    """The last turn before the delivery of a cancel, or before the compensations."""
    timed_out: bool
    compensated: bool
    continued: int | None
    """The turn in which the current iteration began; ``None`` in the first one."""


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record with an error, or the last record of a workflow."""

    key: str
    kind: str
    turn: int
    seq: int
    error: str | None
    child_id: str | None


@dataclass(frozen=True, slots=True)
class StartedChild:
    """A child that a workflow has on record. Without a status there is no such workflow any more."""

    key: str
    turn: int
    child_id: str
    status: str | None
    parent_id: str | None
    parent_key: str | None
    told: int | None
    """The turn in which its outcome went on record."""


class _NotMade(Exception):  # noqa: N818 (it never leaves this module)
    """Rolls a fork back."""

    def __init__(self, why: Forked) -> None:
        self.why = why


async def place(connection: AsyncConnection[Any], schema: str, workflow_id: str, step_key: str | None) -> Place | None:
    """Where an operation stands in a workflow's history; ``None`` if there is no such workflow."""
    found = [] if step_key is None else keys.keys_of(step_key)
    which = {"workflow_id": workflow_id, "step_key": step_key, "keys": found}
    rows = await fetch_all(connection, schema, _TABLE, "place", **which)
    return Place(**rows[0]) if rows else None


async def beside(connection: AsyncConnection[Any], schema: str, workflow_id: str, turn: int) -> list[tuple[str, str]]:
    """The keys and kinds of the records of a turn."""
    rows = await fetch_all(connection, schema, _TABLE, "beside", workflow_id=workflow_id, turn=turn)
    return [(row["key"], row["kind"]) for row in rows]


async def open_tokens(connection: AsyncConnection[Any], schema: str, fork_id: str, turn: int) -> list[tuple[str, str]]:
    """The keys of the tokens that came with a fork and are not answered, and their secrets as JSON."""
    rows = await fetch_all(connection, schema, _TABLE, "open_tokens", fork_id=fork_id, turn=turn)
    return [(row["key"], row["output"] or '""') for row in rows]


async def fork(connection: AsyncConnection[Any], schema: str, request: ForkRequest) -> Forked | None:
    """Makes a fork, or finds that it was made before; ``None`` if there is no workflow to be forked."""
    try:
        async with connection.transaction():
            return await _fork(connection, schema, request)
    except _NotMade as stopped:
        return stopped.why


async def _fork(connection: AsyncConnection[Any], schema: str, request: ForkRequest) -> Forked | None:
    ids = {"workflow_id": request.workflow_id, "fork_id": request.fork_id}
    await fetch_all(connection, schema, "retention", "hold", workflow_id=request.workflow_id)
    what = {"turn": request.turn, "step_key": request.step_key, "output": sealed(codecs_of(connection), request.output)}
    how = {"anew": request.anew, "queue": request.queue, "found": _FOUND}
    rows = await fetch_all(connection, schema, _TABLE, "fork", **ids, **what, **how)
    if not rows:
        return None
    row = rows[0]
    if row["is_earlier"] or row["is_late"]:
        return Forked(is_earlier=row["is_earlier"], is_late=row["is_late"])
    if row["truncated"] is not None:
        return Forked(truncated=(row["truncated"], row["first"]))
    if row["unknown"] is not None:
        return Forked(unknown=row["unknown"])
    if not row["made"]:
        return await _found(connection, schema, request)
    missing = await fetch_all(connection, schema, _TABLE, "children", **ids)
    if missing:
        raise _NotMade(Forked(missing=missing[0]["missing"]))
    return Forked(row["queue"], row["original_queue"])


async def _found(connection: AsyncConnection[Any], schema: str, request: ForkRequest) -> Forked:
    """What stands under the fork's id: the fork itself, whose answer was lost, or something else."""
    which = {"fork_id": request.fork_id, "step_key": request.step_key}
    for row in await fetch_all(connection, schema, _TABLE, "taken", **which):
        same = (row["forked_from"], row["forked_turn"], row["output"])
        if same == (request.workflow_id, request.turn, request.output):
            return Forked(row["queue"], row["queue"])
    return Forked(taken=True)


async def end(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> End | None:
    """How a workflow has ended, or its status; ``None`` if there is no such workflow."""
    rows = await fetch_all(connection, schema, _TABLE, "end", workflow_id=workflow_id)
    return End(**rows[0]) if rows else None


async def failures(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> list[FailedRecord]:
    """The records with an error, and the last record that delivered an outcome; the newest first."""
    return _all(FailedRecord, await _rows(connection, schema, "failures", workflow_id, silent=_SILENT))


async def started(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> list[StartedChild]:
    """The children that a workflow has on record, in the order in which they were started."""
    return _all(StartedChild, await _rows(connection, schema, "started", workflow_id))


async def _rows(connection: AsyncConnection[Any], schema: str, name: str, workflow_id: str, **values: object) -> Rows:
    return await fetch_all(connection, schema, _TABLE, name, workflow_id=workflow_id, **values)


def _all(kind: Any, rows: Rows) -> list[Any]:
    return [kind(**row) for row in rows]
