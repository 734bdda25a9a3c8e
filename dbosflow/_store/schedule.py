"""The table ``schedule``: workflows that are started at certain times."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import partition_of, queue_of
from dbosflow._store.payloads import codecs_of, sealed
from dbosflow._store.queries import fetch_all
from dbosflow.schedule_definitions import ScheduleDef
from dbosflow.serde import for_people
from dbosflow.types import ScheduleInfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg.rows import DictRow

_TABLE = "schedule"
_OWNED_BY_CODE = tuple(ScheduleDef.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule as one statement saw it, and the clock of that moment."""

    definition: ScheduleDef
    version: UUID
    module: str | None
    fingerprint: str
    """Of the definition when it was written: other code may compute another one."""
    fingerprints: list[str]
    """All that were declared for its name, in the order in which they were first seen."""
    paused: bool
    paused_because: str | None
    next_at: datetime | None
    checked_at: datetime
    set_at: datetime
    """When its times were set: ticks up to then do not count."""
    last_at: datetime | None
    buffered_at: datetime | None
    now: datetime
    running: list[str]
    """The workflows that it has started and that have not ended, if the statement has looked."""
    unasked: list[str]
    """Those of its workflows that nobody has asked to end, if the statement has looked."""

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.definition.name


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ticks that may start workflows now."""

    ids: Sequence[str] = ()
    ats: Sequence[datetime] = ()
    begins: Sequence[datetime] = ()
    """When the workflow of each may begin."""
    inputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """What a statement has started."""

    queue: str
    ids: list[str]
    buffered_at: datetime | None = None


# -- for a scheduler ---------------------------------------------------------------------------------------------------


async def next_due(connection: AsyncConnection[Any], schema: str, now: datetime | None) -> tuple[float, bool]:
    """Seconds until a schedule has something to do, 0 or less if one has; and whether a tick waits for an end."""
    (row,) = await fetch_all(connection, schema, _TABLE, "next_due", now=now)
    return math.inf if row["seconds"] is None else row["seconds"], row["somebody_waits"]


async def look(connection: AsyncConnection[Any], schema: str, now: datetime | None, limit: int) -> list[ScheduleRow]:
    """Some schedules that have something to do; what is due comes first."""
    return [_row(row) for row in await fetch_all(connection, schema, _TABLE, "look", now=now, limit=limit)]


async def tick(
    connection: AsyncConnection[Any],
    schema: str,
    row: ScheduleRow,
    candidates: Candidates,
    *,
    next_at: datetime | None,
    left_out: int,
) -> Started | None:
    """Moves a schedule on, and starts what its overlap policy lets; ``None`` if somebody else has changed it."""
    found = await fetch_all(
        connection,
        schema,
        _TABLE,
        "tick",
        name=row.name,
        version=row.version,
        now=row.now,
        next_at=next_at,
        left_out=left_out,
        ids=list(candidates.ids),
        ats=list(candidates.ats),
        begins=list(candidates.begins),
        inputs=_stored(connection, candidates.inputs),
    )
    return Started(found[0]["queue"], found[0]["started"], found[0]["buffered_at"]) if found else None


async def of_code(connection: AsyncConnection[Any], schema: str, names: Sequence[str]) -> list[ScheduleRow]:
    """The schedules that code declares, and those of these names."""
    return [_row(row) for row in await fetch_all(connection, schema, _TABLE, "of_code", names=list(names))]


async def declared(connection: AsyncConnection[Any], schema: str) -> list[dict[str, str]]:
    """What the live workers' code declares: fingerprints by name, each combination once."""
    rows = await fetch_all(connection, schema, _TABLE, "declared")
    return [json.loads(row["schedules"]) for row in rows]


# -- in a transaction that changes a schedule --------------------------------------------------------------------------


async def clock(connection: AsyncConnection[Any], schema: str, now: datetime | None = None) -> datetime:
    """The database's time."""
    found: datetime = (await fetch_all(connection, schema, _TABLE, "clock", now=now))[0]["now"]
    return found


async def lock(
    connection: AsyncConnection[Any], schema: str, name: str, now: datetime | None = None
) -> ScheduleRow | None:
    """The schedule of that name, which nobody else changes until the transaction ends."""
    rows = await fetch_all(connection, schema, _TABLE, "lock", name=name, now=now)
    return _row(rows[0]) if rows else None


async def add(
    connection: AsyncConnection[Any], schema: str, definition: ScheduleDef, module: str | None, now: datetime
) -> bool:
    """Adds a schedule, whose first tick comes after ``now``; whether there was none of its name."""
    fingerprints, next_at = [definition.fingerprint], definition.ticks.after(now)
    values = {**_columns(connection, definition), "module": module, "fingerprints": fingerprints}
    values |= {"next_at": next_at, "now": now}
    return bool(await fetch_all(connection, schema, _TABLE, "add", **values))


async def change(
    connection: AsyncConnection[Any], schema: str, before: ScheduleRow, definition: ScheduleDef, module: str | None
) -> None:
    """Replaces what a schedule is. Its next tick stays, if it comes at the same times as before."""
    old = before.definition
    same = (definition.cron, definition.every, definition.timezone) == (old.cron, old.every, old.timezone)
    fingerprints = before.fingerprints
    if definition.fingerprint not in fingerprints:
        fingerprints = [*fingerprints, definition.fingerprint][-_REMEMBERED:]
    await fetch_all(
        connection,
        schema,
        _TABLE,
        "change",
        **_columns(connection, definition),
        module=module,
        fingerprints=fingerprints,
        next_at=before.next_at if same else definition.ticks.after(before.now),
        checked_at=before.checked_at if same else before.now,
        set_at=before.set_at if same else before.now,
    )


_REMEMBERED = 50
"""Fingerprints of a schedule: more than there are versions of its code that run side by side."""


async def pause(connection: AsyncConnection[Any], schema: str, row: ScheduleRow, because: str) -> None:
    """Pauses a schedule."""
    await fetch_all(connection, schema, _TABLE, "pause", name=row.name, now=row.now, because=because)


async def resume(connection: AsyncConnection[Any], schema: str, row: ScheduleRow) -> None:
    """Lets a schedule go on with the first tick from now on."""
    next_at = row.definition.ticks.after(row.now)
    await fetch_all(connection, schema, _TABLE, "resume", name=row.name, now=row.now, next_at=next_at)


async def start(
    connection: AsyncConnection[Any],
    schema: str,
    row: ScheduleRow,
    ids: Sequence[str],
    inputs: Sequence[str],
    *,
    counted: bool,
) -> Started:
    """Starts workflows of a schedule besides its times; with ``counted`` they count as running for later ticks."""
    which: dict[str, Any] = {"name": row.name, "now": row.now, "ids": list(ids), "counted": counted}
    which["inputs"] = _stored(connection, inputs)
    (found,) = await fetch_all(connection, schema, _TABLE, "start", **which)
    return Started(found["queue"], found["started"])


async def delete(connection: AsyncConnection[Any], schema: str, name: str) -> bool:
    """Deletes a schedule, and none of its workflows; whether there was one."""
    return bool(await fetch_all(connection, schema, _TABLE, "delete", name=name))


# -- for people --------------------------------------------------------------------------------------------------------


async def list_schedules(connection: AsyncConnection[Any], schema: str, name: str | None = None) -> list[ScheduleInfo]:
    """All schedules, or the one of a name, sorted by name."""
    return [_info(row) for row in await fetch_all(connection, schema, _TABLE, "list", name=name)]


def _stored(connection: AsyncConnection[Any], inputs: Sequence[str]) -> list[str | None]:
    codecs = codecs_of(connection)
    return [sealed(codecs, text) for text in inputs]


def _columns(connection: AsyncConnection[Any], definition: ScheduleDef) -> dict[str, Any]:
    return definition.columns() | {"input": sealed(codecs_of(connection), definition.input)}


def _row(row: DictRow) -> ScheduleRow:
    definition = {name: row[name] for name in _OWNED_BY_CODE}
    return ScheduleRow(
        ScheduleDef(**{**definition, "input_streams": tuple(row["input_streams"] or ())}),
        version=row["version"],
        module=row["module"],
        fingerprint=row["fingerprint"],
        fingerprints=row["fingerprints"],
        paused=row["paused_at"] is not None,
        paused_because=row["paused_because"],
        next_at=row["next_at"],
        checked_at=row["checked_at"],
        set_at=row["set_at"],
        last_at=row["last_at"],
        buffered_at=row["buffered_at"],
        now=row["now"],
        running=row.get("running", []),
        unasked=row.get("unasked", []),
    )


def _info(row: DictRow) -> ScheduleInfo:
    return ScheduleInfo(
        **{name: row[name] for name in _SHOWN},
        queue=queue_of(row["queue"]),
        partition_key=partition_of(row["queue"]),
        args=for_people(row["input"]),
        declared_in=row["module"],
        paused=row["paused_at"] is not None,
        running=tuple(row["running"]),
    )


_MADE = {"queue", "partition_key", "args", "declared_in", "paused", "running"}
_SHOWN = [name for name in ScheduleInfo.__dataclass_fields__ if name not in _MADE]
