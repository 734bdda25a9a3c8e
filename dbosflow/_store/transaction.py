"""The statements around the body of a user's transaction, as generators that either colour of connection runs.

```text
BEGIN and settings ─► the user's statements ─► constraints, settings, last statement, COMMIT: pipelined
 one round trip                                 one round trip
```
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from psycopg import Error, generators
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import DiagnosticField, ExecStatus, Format

from dbosflow._store import statements
from dbosflow._store.arrays import ARRAYS, dump_values
from dbosflow._store.batch import columns_of, composed
from dbosflow._store.batch_rows import ROW_TYPES, sql_types
from dbosflow._store.cancel_request import CancelRequest
from dbosflow._store.payloads import codecs_of, sealed_tables
from dbosflow._store.queries import fetch_all
from dbosflow._store.wire import Statement, sync, until_sync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection, Connection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

    from dbosflow._store.batch_rows import Row

    Link = AsyncConnection[Any] | Connection[Any]

_TABLE = "transaction"
_TEXT, _UUID = 25, 2950
_COMMIT = b"COMMIT"
_CHECKS = ("savepoint", "patience", "constraints", "release", "settings")
"""The statements before the last one, in its round trip."""
_NO_SUCH_STATEMENT, _STATEMENT_EXISTS, _LOCK_NOT_AVAILABLE = b"26000", b"42P05", b"55P03"
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


class LostStatementError(InvalidSqlStatementName):
    """A statement of ours is not prepared as it was, by no fault of the function. Nothing is committed."""


class ChecksWaitError(Exception):
    """A deferred constraint has to wait for a lock of another transaction. The transaction goes on."""


class ChecksFailedError(Exception):
    """A deferred constraint is violated, or its check failed in another way; ``error`` is the server's."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


def check_apart(link: Link) -> PQGen[None]:
    """Checks all constraints after a ``ChecksWaitError``, however long they have to wait."""
    return _all(link.pgconn, statements.load(_TABLE)["constraints_apart"].encode())


def rollback(link: Link) -> PQGen[None]:
    """Rolls the transaction back."""
    return _all(link.pgconn, _ROLLBACK)


def commit_read_only(link: Link) -> PQGen[None]:
    """Commits a transaction that has written nothing."""
    return _all(link.pgconn, _COMMIT)


def commit(link: Link, schema: str, owned: Owned, tables: Mapping[str, Sequence[Row]]) -> PQGen[CancelRequest | None]:
    """Checks the deferred constraints, and sends the last statement and COMMIT, all in one round trip.

    ``tables`` has the rows of the record and of the blocks. Returns the request to end the workflow, if there is one.

    Raises:
        ChecksWaitError: nothing is committed; call ``check_apart``, and this again.
        ChecksFailedError: nothing is committed.
        psycopg.errors.DivisionByZero: the gate is shut.
        psycopg.Error: nothing is committed if the connection still works; else nobody knows.
    """
    tables = sealed_tables(codecs_of(link), tables)
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


def _commit(link: Link, last: Statement, values: list[bytes | None]) -> PQGen[CancelRequest | None]:
    pgconn, known = link.pgconn, _prepared.setdefault(link, set())
    sent: list[Statement | None] = []
    pgconn.enter_pipeline_mode()
    for statement in (*_checks(), last):
        own = values if statement is last else None
        formats = [Format.BINARY] * len(values) if statement is last else None
        if link.prepare_threshold is None:  # behind a pooler
            pgconn.send_query_params(statement.text, own, statement.types, formats)
        else:
            if statement.name not in known:
                pgconn.send_prepare(statement.name, statement.text, statement.types)
                sent.append(statement)
            pgconn.send_query_prepared(statement.name, own, formats)
        sent.append(statement)
    pgconn.send_query_params(_COMMIT, None)
    sent.append(None)
    sync(pgconn)
    results = yield from until_sync(pgconn)
    pgconn.exit_pipeline_mode()
    _judge(results, sent, known, last)
    text = results[-2].get_value(0, 1)
    if text is None:
        return None
    reason, timed_out = json.loads(text)
    return CancelRequest(reason, bool(timed_out))


def _judge(results: Sequence[PGresult], sent: Sequence[Statement | None], known: set[bytes], last: Statement) -> None:
    """Notes what is prepared now: a rollback leaves it, but psycopg may have deallocated it. Raises what has failed."""
    for result, statement in zip(results, sent, strict=False):
        if not _failed(result):
            if statement is not None:
                known.add(statement.name)
            continue
        state, error = result.error_field(DiagnosticField.SQLSTATE), error_from_result(result)
        if statement is not None and state in {_NO_SUCH_STATEMENT, _STATEMENT_EXISTS}:
            # The next attempt prepares them anew; of those of which only some were deallocated, it learns one by one.
            known.clear() if state == _NO_SUCH_STATEMENT else known.add(statement.name)
            raise LostStatementError(str(error))
        if statement is not last and statement is not None:
            raise ChecksWaitError if state == _LOCK_NOT_AVAILABLE else ChecksFailedError(error)
        raise error


@cache
def _checks() -> tuple[Statement, ...]:
    found = statements.load(_TABLE)
    return tuple(Statement(f"dbosflow_{name}".encode(), found[name].encode(), ()) for name in _CHECKS)


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
