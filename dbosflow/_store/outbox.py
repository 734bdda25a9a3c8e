"""The table ``outbox``: what users' own transactions ask for, and what engines make of it after the commit.

The rows are written on the user's connection, by ``INSERTS``; the rest runs on connections of an engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._store import statements
from dbosflow._store.listing import info_of
from dbosflow._store.payloads import is_other
from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from collections.abc import Sequence

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


async def pending(connection: AsyncConnection[Any], schema: str, after: str, limit: int) -> list[tuple[str, bool]]:
    """The first workflows after a place that have rows in the outbox; and whether a start is the next."""
    rows = await fetch_all(connection, schema, _TABLE, "pending", after=after, limit=limit)
    return [(row["workflow_id"], row["starts"]) for row in rows]


async def apply_starts(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> Rows:
    """Starts these workflows, of each by its oldest row if that is a start; returns what came of each."""
    rows = await fetch_all(connection, schema, _TABLE, "apply_starts", ids=list(ids))
    return [{**row, "differs": is_other(row.pop("input"), row.pop("payload"))} for row in rows]


async def waiting_start(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> WorkflowInfo | None:
    """The record of a workflow whose start is in the outbox."""
    rows = await fetch_all(connection, schema, _TABLE, "waiting_start", workflow_id=workflow_id)
    if not rows:
        return None
    unknown = ("output", "error", "worker_id", "parent_id", "started_at", "ended_at", "forked_from", "forked_turn")
    columns = {name: value for name, value in rows[0].items() if name != "deadline_at"}
    return info_of({**dict.fromkeys(unknown), **columns, "epoch": 0, "recoveries": 0})
