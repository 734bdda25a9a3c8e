"""Collects the facts that ``dbosflow doctor`` judges. A check that fails does not hide the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._store import doctor
from dbosflow._store.connect import connect_async
from dbosflow._store.notify import can_notify
from dbosflow.cli.doctor.database import (
    judge_clock,
    judge_connection,
    judge_limits,
    judge_listen,
    judge_settings,
    judge_versions,
)
from dbosflow.cli.doctor.finding import Finding, Verdict
from dbosflow.cli.doctor.schedules import judge_schedules
from dbosflow.cli.doctor.work import (
    LONG,
    MANY,
    OLD,
    judge_outbox,
    judge_retention,
    judge_schema,
    judge_work,
    judge_workers,
)
from dbosflow.errors import DbosflowError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from psycopg import AsyncConnection

_PATIENCE = 5.0
"""Seconds for a connection, while a person waits."""
_PROBE_PATIENCE = 1.0
"""Seconds for a NOTIFY to reach a LISTEN: as the engine itself waits when it opens."""


async def examine(url: str, schema: str, *, listen_url: str | None = None) -> list[Finding]:
    """All possible checks, in an order in which the first problem explains the later ones."""
    try:
        connection = await _connect(url)
    except DbosflowError as error:
        return [Finding("connection", Verdict.PROBLEM, str(error))]
    async with connection:
        examination = _Examination(connection, url, schema)
        found = [judge_connection(connection), judge_versions(connection)]
        found += [await _guarded("clock", examination.clock())]
        found += [await _guarded("connections", examination.limits())]  # before more connections are opened
        found += [await _guarded("listen", examination.listen(listen_url))]
        found += [await _guarded("settings", examination.settings())]
        found += [await _guarded("schema", examination.schema())]
        if examination.usable:
            found += [await _guarded("workers", examination.workers())]
            found += [await _guarded("work", examination.work())]
            found += [await _guarded("outbox", examination.outbox())]
            found += [await _guarded("schedules", examination.schedules())]
            found += [await _guarded("retention", examination.retention())]
        return found


class _Examination:
    """Collects facts, and keeps earlier ones that later checks need."""

    def __init__(self, connection: AsyncConnection[Any], url: str, schema: str) -> None:
        self._connection = connection
        self._url = url
        self._schema = schema
        self._pooled = False
        self._any_worker = False
        self.usable = False
        """Whether the schema exists and this role may read it."""

    async def clock(self) -> Finding:
        sent_at = time.time()
        server = await doctor.server(self._connection, self._schema)
        return judge_clock(server["clock"] - (sent_at + time.time()) / 2, time.time() - sent_at)

    async def listen(self, listen_url: str | None) -> Finding:
        delay = await self._hears(self._url)
        self._pooled = delay is None
        if listen_url is not None:
            delay = await self._hears(listen_url)
        return judge_listen(delay, is_direct=listen_url is not None, pooled=self._pooled)

    async def settings(self) -> Finding:
        server = await doctor.server(self._connection, self._schema)
        settings = await doctor.settings(self._connection, self._schema)
        return judge_settings(server, settings, pooled=self._pooled)

    async def limits(self) -> Finding:
        return judge_limits(await doctor.connections(self._connection, self._schema))

    async def schema(self) -> Finding:
        rights = await doctor.rights(self._connection, self._schema)
        try:
            state = await doctor.state(self._connection, self._schema)
        except PermissionDeniedError:
            state = None
        finding = judge_schema(self._schema, state, rights)
        self.usable = bool(state and state[0]) and not any("SELECT" in lacks for lacks in rights["missing"].values())
        return finding

    async def workers(self) -> Finding:
        finding = judge_workers(await doctor.workers(self._connection, self._schema))
        self._any_worker = bool(finding.facts["live"])
        return finding

    async def work(self) -> Finding:
        queues = await doctor.queues(self._connection, self._schema)
        blocked = await doctor.blocked(self._connection, self._schema)
        suspended = await doctor.suspended(self._connection, self._schema)
        stranded = await doctor.stranded(self._connection, self._schema)
        unknown = await doctor.unknown_names(self._connection, self._schema)
        return judge_work(queues, blocked, stranded, unknown=unknown, any_worker=self._any_worker, suspended=suspended)

    async def outbox(self) -> Finding:
        found = await doctor.outbox(self._connection, self._schema, LONG, MANY)
        return judge_outbox(found, any_worker=self._any_worker)

    async def schedules(self) -> Finding:
        return judge_schedules(await doctor.schedules(self._connection, self._schema), any_worker=self._any_worker)

    async def retention(self) -> Finding:
        return judge_retention(await doctor.retention(self._connection, self._schema, OLD, MANY + 1))

    async def _hears(self, listen_url: str) -> float | None:
        """Seconds from a NOTIFY to its arrival at a LISTEN; ``None`` if it does not arrive."""
        async with await _connect(listen_url) as listener, await _connect(self._url) as notifier:
            began = time.monotonic()
            heard = await can_notify(listener, notifier, self._schema, patience=_PROBE_PATIENCE)
            return time.monotonic() - began if heard else None


async def _connect(url: str) -> AsyncConnection[Any]:
    # As if behind a pooler, because that is not known yet.
    return await connect_async(url, timeout=_PATIENCE, pooled=True)


async def _guarded(check: str, asking: Awaitable[Finding]) -> Finding:
    try:
        return await asking
    except (psycopg.Error, DbosflowError) as error:
        why = str(error).strip().partition("\n")[0]
        return Finding(check, Verdict.PROBLEM, f"this could not be checked: {why}", "see to the problems above first")
