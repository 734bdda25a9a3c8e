"""The statements around the body of a user's transaction, as generators that either colour of connection runs.

```text
BEGIN and settings ─► the user's statements ─► constraints, settings ─► last statement and COMMIT, pipelined
 one round trip                                 one round trip           one round trip
```
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from psycopg import OperationalError, generators
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format
from psycopg.waiting import Ready, Wait

from dbosflow._store import statements
from dbosflow._store.arrays import ARRAYS, dump_values
from dbosflow._store.batch import columns_of, composed
from dbosflow._store.batch_rows import ROW_TYPES, sql_types
from dbosflow._store.cancel_request import CancelRequest
from dbosflow._store.queries import fetch_all
from dbosflow._store.wire import Statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from psycopg import AsyncConnection, Connection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

    from dbosflow._store.batch_rows import Row

    Link = AsyncConnection[Any] | Connection[Any]

_TABLE = "transaction"
_TEXT, _UUID = 25, 2950
_COMMIT = b"COMMIT"
_NO_SUCH_STATEMENT = b"26000"
_ROLLBACK = b"ROLLBACK"
_WRITES = {"record": "recorded", "block": "appended"}
_ROW_TYPES = {name: row_type for section in ROW_TYPES.values() for name, row_type in section.items()}

_prepared: WeakKeyDictionary[Link, set[bytes]] = WeakKeyDictionary()
"""The names of our prepared statements on each connection."""


class Owned(NamedTuple):
    """Whose transaction it is: what its last statement demands."""

    workflow_id: str
    epoch: int
    worker_id: UUID
    marker: str
    timeline: str | None


class Witnessed(NamedTuple):
    """The record under the key of a transaction whose answer was lost."""

    epoch: int
    attempt: str | None
    kind: str
    output: str | None


def begin(link: Link, *, isolation: str, read_only: bool, idle: float, marker: str) -> PQGen[None]:
    """Begins a transaction. ``idle`` is the number of seconds after which an idle session is ended."""
    return _all(link.pgconn, _begin(isolation.upper(), read_only, max(1, round(idle * 1000)), marker))


@cache
def _begin_text(isolation: str, read_only: bool, idle: int) -> str:  # noqa: FBT001 (cached by place)
    parts = {
        "isolation": isolation,
        "access": "READ ONLY" if read_only else "READ WRITE",
        "idle": str(idle),
        "marker": "{marker}",
    }
    return statements.prepare(statements.source(_TABLE)["begin"], statements.DEFAULT_SCHEMA, parts)


def _begin(isolation: str, read_only: bool, idle: int, marker: str) -> bytes:  # noqa: FBT001
    literal = "'" + marker.replace("'", "''") + "'"
    return _begin_text(isolation, read_only, idle).replace("{marker}", literal).encode()


def conclude(link: Link) -> PQGen[None]:
    """Checks all constraints, and makes the settings of the end."""
    return _all(link.pgconn, statements.load(_TABLE)["conclude"].encode())


def rollback(link: Link) -> PQGen[None]:
    """Rolls the transaction back."""
    return _all(link.pgconn, _ROLLBACK)


def commit_read_only(link: Link) -> PQGen[None]:
    """Commits a transaction that has written nothing."""
    return _all(link.pgconn, _COMMIT)


def commit(link: Link, schema: str, owned: Owned, tables: dict[str, Sequence[Row]]) -> PQGen[CancelRequest | None]:
    """Sends the last statement and COMMIT in one round trip.

    ``tables`` has the rows of the record and of the blocks. Returns the request to end the workflow, if there is one.

    Raises:
        psycopg.errors.DivisionByZero: the gate is shut.
        psycopg.Error: nothing is committed if the connection still works; else nobody knows.
    """
    single = all(len(rows) == 1 for rows in tables.values())
    statement, types = _last(tuple(tables), schema, single, owned.timeline is not None)
    values: list[bytes | None] = [owned.worker_id.bytes, owned.marker.encode()]
    if owned.timeline is not None:
        values.append(owned.timeline.encode())
    values += dump_values((ARRAYS["text[]"], ARRAYS["integer[]"]), (owned.workflow_id, owned.epoch))
    if single:
        values += dump_values(types, [value for (row,) in tables.values() for value in row])
    else:
        columns = (column for rows in tables.values() for column in zip(*rows, strict=True))
        values += [kind.dump_column(items) for kind, items in zip(types, columns, strict=True)]
    return _commit(link, statement, values)


def _commit(link: Link, statement: Statement, values: list[bytes | None]) -> PQGen[CancelRequest | None]:
    pgconn, known = link.pgconn, _prepared.setdefault(link, set())
    prepares = link.prepare_threshold is not None
    formats = [Format.BINARY] * len(values)
    pgconn.enter_pipeline_mode()
    if not prepares:
        pgconn.send_query_params(statement.text, values, statement.types, formats)
    else:
        if statement.name not in known:
            pgconn.send_prepare(statement.name, statement.text, statement.types)
        pgconn.send_query_prepared(statement.name, values, formats)
    pgconn.send_query_params(_COMMIT, None)
    pgconn.pipeline_sync()
    results = yield from _until_sync(pgconn)
    pgconn.exit_pipeline_mode()
    if prepares:
        _note_prepared(known, statement.name, results)
    _raise_first(results)
    text = results[-2].get_value(0, 1)
    if text is None:
        return None
    reason, timed_out = json.loads(text)
    return CancelRequest(reason, bool(timed_out))


def _note_prepared(known: set[bytes], name: bytes, results: Sequence[PGresult]) -> None:
    """Notes whether the statement is prepared now: a rollback leaves it, and psycopg may have deallocated it."""
    state = next((result.error_field(DiagnosticField.SQLSTATE) for result in results if _failed(result)), None)
    if state == _NO_SUCH_STATEMENT:
        known.discard(name)
    elif not _failed(results[0]):
        known.add(name)


@cache
def _last(names: tuple[str, ...], schema: str, single: bool, on_timeline: bool) -> tuple[Statement, tuple[Any, ...]]:  # noqa: FBT001 (cached by place)
    others = {"worker_id": _UUID, "marker": _TEXT} | ({"timeline": _TEXT} if on_timeline else {})
    others |= {"run_workflow_id": _TEXT, "run_epoch": 23}
    fields = [f"{name}_{field}" for name in names for field in _ROW_TYPES[name]._fields]
    parts = dict(columns_of(single=single)) | {"gate": "mine"}
    parts |= {one: f"%({one})s" for one in others}
    writes = {_WRITES[name]: composed("batch", _WRITES[name], (), schema, parts) for name in names}
    sections = (*(("timeline",) if on_timeline else ()), *(("blocks",) if "block" in names else ()))
    text = composed(_TABLE, "last", sections, schema, parts | writes)
    types = tuple(ARRAYS[f"{sql_types()[name]}[]"] for name in fields)
    oids = [one.item_oid if single else one.oid for one in types]
    name = "_".join(("dbosflow_last", *names, *(("one",) if single else ()), *sections[: int(on_timeline)]))
    return Statement(
        name.encode(), statements.numbered(text, (*others, *fields)).encode(), (*others.values(), *oids)
    ), types


def _until_sync(pgconn: PGconn) -> PQGen[list[PGresult]]:
    """Sends what is in the pipeline, and returns all results up to its end."""
    while pgconn.flush():
        ready = yield Wait.RW
        if ready & Ready.R:
            pgconn.consume_input()
    results: list[PGresult] = []
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == ConnStatus.BAD:
                _raise_first(results)
                msg = "the connection was lost before the answer to COMMIT"
                raise OperationalError(msg)
        elif result.status == ExecStatus.PIPELINE_SYNC:
            return results
        else:
            results.append(result)


def _all(pgconn: PGconn, text: bytes) -> PQGen[None]:
    """Runs the statements of one message."""
    pgconn.send_query(text)
    results = yield from generators.execute(pgconn)
    _raise_first(results)


def _raise_first(results: Sequence[PGresult]) -> None:
    for result in results:
        if _failed(result):
            raise error_from_result(result)


def _failed(result: PGresult) -> bool:
    return result.status == ExecStatus.FATAL_ERROR


async def is_mine(
    connection: AsyncConnection[Any], schema: str, *, workflow_id: str, worker_id: UUID, epoch: int
) -> bool:
    """Whether a run is still its worker's, and in this epoch."""
    rows = await fetch_all(
        connection, schema, _TABLE, "fence", workflow_id=workflow_id, worker_id=worker_id, epoch=epoch
    )
    return bool(rows and rows[0]["mine"])


async def witness(connection: AsyncConnection[Any], schema: str, *, workflow_id: str, key: str) -> Witnessed | None:
    """The record under a key, once no transaction of the workflow is committing any more; in autocommit."""
    await fetch_all(connection, schema, _TABLE, "wait_for_commit", workflow_id=workflow_id)
    rows = await fetch_all(connection, schema, _TABLE, "witness", workflow_id=workflow_id, key=key)
    return Witnessed(**rows[0]) if rows else None
