"""The table ``outbox``: what users' own transactions ask for, and what engines make of it after the commit.

The rows are written on the user's connection, by ``INSERTS``; the rest runs on connections of an engine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.pins import queue_of
from dbosflow._store import statements
from dbosflow._store.listing import info_of
from dbosflow._store.payloads import is_other
from dbosflow._store.queries import fetch_all
from dbosflow._store.start_options import NO_OPTIONS, Dedup, StartOptions
from dbosflow._store.workflow import Enqueued
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows
    from dbosflow.types import WorkflowInfo

_TABLE = "outbox"


# -- on the user's connection ----------------------------------------------------------------------------------------


def insert(name: str, schema: str, database: Identity, *, notify: bool) -> str:
    """The text of the statement ``start`` or ``put``, with psycopg's parameters."""
    sections = (*(("cluster",) if database.cluster else ()), *(("notify",) if notify else ()))
    return statements.load(_TABLE, schema, *sections)[name]


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a database from all others."""

    cluster: str
    """The same for all servers of a cluster; empty if this role may not know it."""
    database: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.database}"


async def identity(connection: AsyncConnection[Any], schema: str) -> Identity:
    """The identity of the connection's database."""
    (row,) = await fetch_all(connection, schema, _TABLE, "database")
    cluster = ""
    if row["knows_cluster"]:
        cluster = (await fetch_all(connection, schema, _TABLE, "cluster"))[0]["cluster"]
    return Identity(cluster, row["database"])


# -- on a connection of an engine --------------------------------------------------------------------------------------


async def over(connection: AsyncConnection[Any], schema: str, transactions: Sequence[str]) -> dict[str, bool]:
    """Those of the transactions that are over, each with whether it was committed."""
    rows = await fetch_all(connection, schema, _TABLE, "over", transactions=list(transactions))
    return {row["transaction"]: bool(row["committed"]) for row in rows}


class Pending(NamedTuple):
    """What is in the outbox."""

    targets: list[tuple[str, bool]]
    """The first workflows after a place that have rows; and whether a start is the next."""
    has_keyed: bool
    """Whether there are starts with keys."""


async def pending(connection: AsyncConnection[Any], schema: str, after: str, limit: int) -> Pending:
    """What is in the outbox for the first workflows after a place."""
    rows = await fetch_all(connection, schema, _TABLE, "pending", after=after, limit=limit)
    targets = [(row["workflow_id"], row["starts"]) for row in rows if row["workflow_id"] is not None]
    return Pending(targets, len(targets) < len(rows))


async def apply_starts(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> Rows:
    """Starts these workflows, of each by its oldest row if that is a start; returns what came of each."""
    rows = await fetch_all(connection, schema, _TABLE, "apply_starts", ids=list(ids))
    return [{**row, "differs": is_other(row.pop("input"), row.pop("payload"))} for row in rows]


class KeyedStart(NamedTuple):
    """A start with a key that is in the outbox, and locked."""

    place: tuple[str, str]
    """Its queue and key."""
    id: UUID
    stored: dict[str, Any]

    def start(self) -> Enqueued:
        """The start, whose times count from when it was asked for. Raises if it is none, or cannot be decoded here."""
        request, asked_at = json.loads(self.stored["request"]), self.stored["created_at"]
        options = None if request["options"] is None else StartOptions(*request["options"])
        if options is not None:
            due_at = asked_at + options.delay if options.delay is not None else options.run_at
            allowed = None if options.timeout is None else max(due_at or asked_at, asked_at) + options.timeout
            ends = [end for end in (allowed, options.deadline) if end is not None]
            options = options._replace(delay=None, run_at=due_at, timeout=None, deadline=min(ends, default=None))
        return Enqueued(
            self.stored["start_id"],
            *(request["name"], request["queue"], request["priority"], readable(self.stored["input"]) or ""),
            *(tuple(request["input_streams"]), options, None),
            dedup=Dedup(self.place[1], request["policy"], request["longest"]),
        )


def keyed_item(row: Enqueued) -> str:
    """A start with a key as an item of the statement ``put_keyed``."""
    assert row.dedup is not None
    request = {
        "name": row.name,
        "queue": row.queue,
        "priority": row.priority,
        "input_streams": row.input_streams,
        "options": row.options,
        "policy": row.dedup.policy,
        "longest": row.dedup.longest,
        "attributes": None if row.options is None else row.options.attributes,
    }
    place = {"id": row.workflow_id, "key_queue": queue_of(row.queue), "key": row.dedup.key, "request": request}
    return f'{json.dumps(place)[:-1]}, "input": {row.input}}}'


def plain_item(row: Enqueued) -> str:
    """A start without a key as an item of the statements ``start_all`` and ``put_all``."""
    options = (row.options or NO_OPTIONS)._asdict()
    attributes = options.pop("attributes")
    values = {"id": row.workflow_id, "name": row.name, "queue": row.queue, "priority": row.priority}
    given = {name: value for name, value in options.items() if value is not None}
    text = json.dumps({**values, **({"input_streams": row.input_streams} if row.input_streams else {}), **given})
    attributed = "" if attributes is None else f', "attributes": {attributes}'
    return f'{text[:-1]}{attributed}, "input": {row.input}}}'


async def keyed(
    connection: AsyncConnection[Any], schema: str, after: tuple[str, str], limit: int
) -> tuple[list[KeyedStart], tuple[str, str] | None]:
    """The oldest starts of the first keys after a place, locked; and the last of these keys, if there may be more."""
    where = {"after_queue": after[0], "after_key": after[1]}
    rows = await fetch_all(connection, schema, _TABLE, "keyed", **where, limit=limit)
    following = (rows[-1]["queue"], rows[-1]["key"]) if len(rows) == limit else None
    return [KeyedStart((row["queue"], row["key"]), row["id"], row) for row in rows if row["id"] is not None], following


async def remove_keyed(connection: AsyncConnection[Any], schema: str, starts: Sequence[KeyedStart]) -> None:
    """Removes starts that ``keyed`` has locked in this transaction."""
    places = [one.place for one in starts]
    values = {"queues": [queue for queue, _ in places], "keys": [key for _, key in places]}
    await fetch_all(connection, schema, _TABLE, "remove_keyed", **values, ids=[one.id for one in starts])


async def waiting_start(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> WorkflowInfo | None:
    """The record of a workflow whose start is in the outbox."""
    rows = await fetch_all(connection, schema, _TABLE, "waiting_start", workflow_id=workflow_id)
    rows = rows or await fetch_all(connection, schema, _TABLE, "waiting_keyed", workflow_id=workflow_id)
    if not rows:
        return None
    unknown = ("output", "error", "worker_id", "parent_id", "started_at", "ended_at", "forked_from", "forked_turn")
    columns = {name: value for name, value in rows[0].items() if name != "deadline_at"}
    return info_of({**dict.fromkeys(unknown), **columns, "epoch": 0, "recoveries": 0})
