"""The journal's statement: the rows of many runs in one round trip and one WAL flush, all written or none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from dbosflow._store import statements
from dbosflow._store.arrays import ARRAYS, ArrayType, dump_values
from dbosflow._store.batch_rows import BatchRows, EndRow, RecordRow, parameters, shape_of, sql_types
from dbosflow._store.cancel_request import CancelRequest
from dbosflow._store.notify import behind
from dbosflow._store.payloads import codecs_of, sealed_tables
from dbosflow._store.queries import fetch_all
from dbosflow._store.wire import Statement, execute, execute_and_follow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg.pq.abc import PGresult

    from dbosflow._store.batch_rows import Row
    from dbosflow._store.wire import Sent

_TABLE = "batch"
_UUID = 2950
"""The type id of a worker's id."""
_TEXT = 25
_TIMELINE = "timeline"
"""The section that guards a batch against another timeline than the given one."""
_NOBODY: frozenset[str] = frozenset()
_COUNTS = {f"{row}_count": f"{row}_workflow_id" for row in ("run", "start", "end", "suspend", "continue")}
"""The numbers of rows in the statement, and for each the array whose length it is."""
_WRITES = {
    "starts": "started",
    "options": "attributed",
    "records": "recorded",
    "blocks": "appended",
    "inputs": "closed",
    "ends": "ended",
    "suspends": "suspended",
    "awaits": "awaited",
    "continues": "continued",
    "attributes": "changed",
}
"""The part of the statement that writes the rows of each section."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The statement's answer: whether the worker lives, whether the batch was written, and else the runs at fault."""

    leased: bool
    written: bool
    started: frozenset[str]
    mine: frozenset[str] = _NOBODY
    moved: frozenset[str] = _NOBODY
    cancelled: Mapping[str, CancelRequest] = field(default_factory=dict)
    """The runs for which a cancel was requested, whether the batch was written or not."""
    timeline: str | None = None
    """The server's timeline, if the answer has it."""
    notified: bool | None = None
    """Whether the hints that followed the batch were sent; ``None``: none followed."""


@cache
def batch_statement(shape: tuple[str, ...], schema: str, *, single: bool = False) -> str:
    """The batch statement with only the sections of ``shape``.

    If ``single``, a plain value stands in the place of each array: for one row in each section the server takes a sixth
    less time, since it sets up no node that unnests.
    """
    parts = columns_of(single=single) | {"gate": "gate"}
    writes = {
        name: composed(_TABLE, name, shape, schema, parts) for section, name in _WRITES.items() if section in shape
    }
    return composed(_TABLE, "batch", shape, schema, parts | writes)


@cache
def lone_statement(shape: tuple[str, ...], schema: str) -> str | None:
    """The batch statement reduced to one row in the one section that writes; ``None`` if several sections do.

    This form writes its row, or none if the gate is shut. The server takes a tenth to a fifth less time again.
    """
    writing = [name for section, name in _WRITES.items() if section in shape]
    if len(writing) != 1:
        return None
    parts = columns_of(single=True)
    gate = composed(_TABLE, "lone_gate", shape, schema, parts)
    return composed(_TABLE, writing[0], shape, schema, parts | {"gate": f"({gate}) AS gate"})


def composed(table: str, name: str, shape: tuple[str, ...], schema: str, parts: Mapping[str, str]) -> str:
    """A statement of ``sql/<table>.sql`` with only the sections of ``shape``, and ``parts`` in their places."""
    return statements.prepare(statements.with_sections(statements.source(table)[name], shape), schema, parts)


@cache
def columns_of(*, single: bool) -> dict[str, str]:
    """The SQL of each column of the rows, and of the number of rows: from arrays, or plain values."""
    if single:
        columns = {name: f"%({name})s::{kind}" for name, kind in sql_types().items()}
        return columns | dict.fromkeys(_COUNTS, "1")
    columns = {name: f"unnest(%({name})s::{kind}[])" for name, kind in sql_types().items()}
    return columns | {count: f"cardinality(%({ids})s::text[])" for count, ids in _COUNTS.items()}


@dataclass(frozen=True, slots=True)
class _Forms:
    """The statement of one shape as the wire takes it, with the same parameters in each form."""

    types: tuple[ArrayType, ...]
    arrays: Statement
    single: Statement
    lone: Statement | None


@cache
def _forms(tables: tuple[str, ...], conditions: tuple[str, ...], schema: str, *, on_timeline: bool) -> _Forms:
    names = parameters(shape_of(tables))
    shape = (*((_TIMELINE,) if on_timeline else ()), *conditions, *shape_of(tables))
    others = {"worker_id": _UUID} | ({"timeline": _TEXT} if on_timeline else {})
    types = tuple(ARRAYS[f"{sql_types()[name]}[]"] for name in names)

    def on_wire(form: str, text: str, oids: Iterable[int]) -> Statement:
        name = "_".join((form, *shape))
        return Statement(
            name.encode(), statements.numbered(text, (*others, *names)).encode(), (*others.values(), *oids)
        )

    items = [one.item_oid for one in types]
    lone = lone_statement(shape, schema)
    return _Forms(
        types,
        on_wire("dbosflow_batch", batch_statement(shape, schema), [one.oid for one in types]),
        on_wire("dbosflow_batch_one", batch_statement(shape, schema, single=True), items),
        on_wire("dbosflow_batch_lone", lone, items) if lone is not None else None,
    )


async def write_batch(
    connection: AsyncConnection[Any], rows: BatchRows, worker_id: UUID, schema: str, timeline: str | None = None
) -> BatchResult:
    """Sends one batch, which is not written on another ``timeline``.

    A single row goes alone; if that is not written, the full statement says why, or may still write the row.

    Raises what psycopg raises; then the batch's fate is unknown until a witness is asked.
    """
    tables = sealed_tables(codecs_of(connection), rows.tables())
    forms = _forms(tuple(tables), rows.conditions, schema, on_timeline=timeline is not None)
    prepare = connection.prepare_threshold is not None
    values: list[bytes | None] = [worker_id.bytes] if timeline is None else [worker_id.bytes, timeline.encode()]
    if _is_single(tables):
        values += dump_values(forms.types, [value for (row,) in tables.values() for value in row])
        follower = behind(schema, rows.topics) if rows.topics and prepare else None
        lone = None if rows.aware else forms.lone
        if lone is not None:
            result, notified = await _single(connection, (lone, values), follower, prepare=prepare)
            if result.command_tuples:
                return BatchResult(leased=True, written=True, started=_all_started(rows), notified=notified)
        result, notified = await _single(connection, (forms.single, values), follower, prepare=prepare)
    else:
        notified = None
        columns = (column for table in tables.values() for column in zip(*table, strict=True))
        values += [kind.dump_column(items) for kind, items in zip(forms.types, columns, strict=True)]
        result = await execute(connection, forms.arrays, values, prepare=prepare)
    row = {result.fname(column): result.get_value(0, column) for column in range(result.nfields)}
    started, timeline_found = row.get(b"started"), row.get(b"timeline")
    return BatchResult(
        leased=row[b"leased"] == b"t",
        written=row[b"written"] == b"t",
        mine=_ids(row.get(b"mine")),
        moved=_ids(row.get(b"moved")),
        cancelled=_requests(row.get(b"cancelled")),
        started=_all_started(rows) if started is None else _ids(started),
        timeline=None if timeline_found is None else timeline_found.decode(),
        notified=notified,
    )


async def _single(
    connection: AsyncConnection[Any], sent: Sent, follower: Sent | None, *, prepare: bool
) -> tuple[PGresult, bool | None]:
    """The result of a statement, and whether the one that follows it, if any, has succeeded."""
    if follower is None:
        return await execute(connection, *sent, prepare=prepare), None
    return await execute_and_follow(connection, sent, follower)


def _is_single(tables: Mapping[str, Sequence[Row]]) -> bool:
    """Whether there is one row of each type: a batch of one record, one value, one start or one end."""
    return max(map(len, tables.values())) == 1


def _all_started(rows: BatchRows) -> frozenset[str]:
    return frozenset([workflow_id for workflow_id, *_ in rows.starts]) if rows.starts else _NOBODY


def _ids(text: bytes | None) -> frozenset[str]:
    return frozenset(json.loads(text)) if text else _NOBODY


def _requests(text: bytes | None) -> Mapping[str, CancelRequest]:
    if not text:
        return {}
    return {workflow_id: CancelRequest(reason, bool(timed_out)) for workflow_id, reason, timed_out in json.loads(text)}


async def is_durable(connection: AsyncConnection[Any], rows: BatchRows, worker_id: UUID, schema: str) -> bool:
    """Whether this batch was committed, by a row that only this batch can have written; and durable, if it was.

    One statement is all or nothing, so one row of it decides. A batch of nothing but starts has no such row and needs
    none: sending it again is harmless. What comes with a start decides nothing: an earlier batch may have written it.
    """
    values: dict[str, Any]
    if rows.records:
        record = RecordRow._make(rows.records[0])
        name = "witness_record"
        values = {"workflow_id": record.workflow_id, "key": record.key, "epoch": record.epoch}
    elif rows.blocks:
        block = rows.blocks[0]
        name = "witness_block"
        values = {"workflow_id": block.workflow_id, "key": block.key, "offset": block.offset, "epoch": block.epoch}
    elif rows.ends:
        end = EndRow._make(rows.ends[0])
        name, values = "witness_end", {"workflow_id": end.workflow_id, "epoch": end.epoch}
    elif rows.suspends:  # like an end, it leaves the row without a worker
        left = rows.suspends[0]
        name, values = "witness_end", {"workflow_id": left.workflow_id, "epoch": left.epoch}
    else:
        return False
    return bool(await fetch_all(connection, schema, "batch", name, worker_id=worker_id, **values))
