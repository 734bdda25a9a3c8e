"""Removes old data: the beginnings of streams, and ended workflows. Joins blocks of ended workflows."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dbosflow._store import statements
from dbosflow._store.queries import fetch_all, fetch_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows

_TABLE = "retention"

Place = tuple[datetime, str]
"""A workflow's position in the order of creation: its creation time and its id."""

BEGINNING: Place = (datetime.min.replace(tzinfo=UTC), "")
_END: Place = (datetime.max.replace(tzinfo=UTC), "")

JOINING = 1 / 16
"""The part of trims that join what is left of old ones: until the next vacuum they read past what is joined already."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """Which workflows may be removed. Ages are seconds, ``math.inf`` for never."""

    finished_age: float
    failed_age: float
    kept_since: Mapping[str, datetime] = field(default_factory=dict)
    """By name: the workflows that were created then or later stay."""

    @property
    def ages(self) -> dict[str, Any]:
        """The ages, as statements take them."""
        ages = {"finished_age": self.finished_age, "failed_age": self.failed_age}
        return {name: None if age == math.inf else age for name, age in ages.items()}


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to prune, for one pass of a walk over all workflows."""

    is_ours: bool
    """Whether this process had the turn before, too."""
    after: Place
    """Where the pass begins: ``BEGINNING`` for the first one of a walk."""


async def trim(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, before: int) -> int | None:
    """Removes a stream's whole blocks before an offset. Returns the first offset left, ``None`` without a stream."""
    sections = ("join",) if random.random() < JOINING else ()  # noqa: S311 (no secret)
    text = statements.load(_TABLE, schema, *sections)["trim"]
    async with connection.transaction():
        await fetch_all(connection, schema, _TABLE, "hold", workflow_id=workflow_id)
        await fetch_text(connection, schema, text, {"workflow_id": workflow_id, "key": key, "before": before})
        return await first(connection, schema, workflow_id, key)


async def first(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str) -> int | None:
    """The first offset of a stream that is left."""
    rows = await fetch_all(connection, schema, _TABLE, "first", workflow_id=workflow_id, key=key)
    return int(rows[0]["first"]) if rows else None


async def is_trimmed(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, producer: str) -> bool:
    """Whether values of a producer have been removed."""
    which = {"workflow_id": workflow_id, "key": key, "producer": producer}
    return bool(await fetch_all(connection, schema, _TABLE, "trimmed", **which))


class WritersCommitError(Exception):
    """Somebody is just committing what may belong to a workflow that is to be removed. Nothing was removed."""


async def prune(connection: AsyncConnection[Any], schema: str, age: float, batch: int) -> int:
    """Removes up to ``batch`` workflows that ended more than ``age`` seconds ago; returns their number."""
    return len(await _remove(connection, schema, (), Pruning(age, age).ages | {"batch": batch}))


async def prune_between(
    connection: AsyncConnection[Any], schema: str, which: Pruning, after: Place, until: Place | None, *, batch: int
) -> list[Place]:
    """Removes up to ``batch`` of the workflows behind one place, up to another; returns the places of the removed.

    A workflow stays as long as its parent is there.
    """
    names = ("after_at", "after_id", "until_at", "until_id")
    places = dict(zip(names, (*after, *(until or _END)), strict=True))
    kept = which.kept_since
    values = {"kept_names": [*kept], "kept_since": [*kept.values()], "batch": batch}
    return sorted(await _remove(connection, schema, ("walk",), which.ages | places | values))


async def _remove(
    connection: AsyncConnection[Any], schema: str, sections: tuple[str, ...], which: Mapping[str, Any]
) -> list[Place]:
    choose = statements.load(_TABLE, schema, *sections)["choose"]
    async with connection.transaction():
        rows = await fetch_text(connection, schema, choose, which)
        removed = await _remove_chosen(connection, schema, rows)
    return [(row["created_at"], row["id"]) for row in rows if row["id"] in removed]


async def delete(
    connection: AsyncConnection[Any], schema: str, ids: Sequence[str], *, children: bool
) -> dict[str, tuple[str, str]]:
    """Removes ended workflows; returns what came of each: an outcome, and its status. Nothing of ids without workflows.

    The outcomes are ``deleted``, and of what is kept ``active``, ``needed``, ``held`` or ``unknown``.
    """
    async with connection.transaction():
        which = {"ids": list(ids), "children": children}
        rows = await fetch_all(connection, schema, _TABLE, "choose_by_id", **which)
        removed = await _remove_chosen(connection, schema, [row for row in rows if row["outcome"] == "deleted"])
    kept = {row["id"] for row in rows if row["outcome"] == "deleted"} - removed
    return {row["id"]: ("needed" if row["id"] in kept else row["outcome"], row["status"]) for row in rows}


async def _remove_chosen(connection: AsyncConnection[Any], schema: str, rows: Rows) -> set[str]:
    """Removes chosen workflows, in their transaction; returns the ids of those that are gone."""
    writers = {writer for row in rows for writer in row["writers"] or ()}
    if writers:
        (open_ones,) = await fetch_all(connection, schema, _TABLE, "committing", writers=sorted(writers))
        if open_ones["writers"]:
            raise WritersCommitError
    # Also none: who may not remove is told so.
    removed = await fetch_all(connection, schema, _TABLE, "remove", ids=[row["id"] for row in rows])
    return {row["id"] for row in removed}


async def prunable(connection: AsyncConnection[Any], schema: str, age: float) -> int:
    """The number of workflows that ``prune`` would remove."""
    return int((await fetch_all(connection, schema, _TABLE, "prunable", age=age))[0]["workflows"])


async def scattered(
    connection: AsyncConnection[Any], schema: str, workflow_id: str, least: int, max_bytes: int
) -> list[str]:
    """The keys of a workflow's streams in which at least the given number of blocks could join their predecessors."""
    which = {"workflow_id": workflow_id, "least": least, "max_bytes": max_bytes}
    return [row["key"] for row in await fetch_all(connection, schema, _TABLE, "scattered", **which)]


async def compact(
    connection: AsyncConnection[Any],
    schema: str,
    workflow_id: str,
    key: str,
    start: int,
    *,
    max_blocks: int,
    max_bytes: int,
) -> int | None:
    """Compacts a part of an ended workflow's stream. Returns where to continue, ``None`` if nothing is left to do.

    Does nothing if another process holds the workflow.
    """
    async with connection.transaction():
        if not await fetch_all(connection, schema, _TABLE, "claim_ended", workflow_id=workflow_id):
            return None
        which = {"workflow_id": workflow_id, "key": key, "start": start}
        (row,) = await fetch_all(
            connection, schema, _TABLE, "compact", **which, max_blocks=max_blocks, max_bytes=max_bytes
        )
        found: int | None = row["next"]
        return found


async def ended_after(connection: AsyncConnection[Any], schema: str, place: Place, limit: int) -> list[Place]:
    """The next ended workflows in the order of creation."""
    created_at, workflow_id = place
    rows = await fetch_all(
        connection, schema, _TABLE, "ended_after", created_at=created_at, id=workflow_id, limit=limit
    )
    return [(row["created_at"], row["id"]) for row in rows]


async def turn_due_in(connection: AsyncConnection[Any], schema: str, holder: UUID, patience: float) -> float:
    """Seconds until ``holder`` may take the turn to prune, of another process ``patience`` later; 0 or less: now."""
    rows = await fetch_all(connection, schema, _TABLE, "turn_due_in", holder=holder, patience=patience)
    if not rows:
        await fetch_all(connection, schema, _TABLE, "add_turn")
    return float(rows[0]["due_in"]) if rows else 0.0


async def take_turn(connection: AsyncConnection[Any], schema: str, holder: UUID, patience: float) -> Turn | None:
    """Takes the turn to prune until the end of the transaction; ``None`` if it is not due or another process has it."""
    rows = await fetch_all(connection, schema, _TABLE, "take_turn", holder=holder, patience=patience)
    if not rows:
        return None
    row = rows[0]
    after = BEGINNING if row["after_at"] is None else (row["after_at"], row["after_id"])
    return Turn(bool(row["is_ours"]), after)


async def newest_since(connection: AsyncConnection[Any], schema: str, name: str, count: int) -> datetime:
    """Since when the newest ``count`` ended workflows of a name were created."""
    rows = await fetch_all(connection, schema, _TABLE, "newest", name=name, count=count)
    return rows[0]["created_at"] if rows else BEGINNING[0]


async def pass_end(
    connection: AsyncConnection[Any], schema: str, which: Pruning, after: Place, count: int
) -> Place | None:
    """The place of the last of ``count`` workflows behind a place; ``None`` if there are fewer that are old enough."""
    rows = await fetch_all(
        connection, schema, _TABLE, "pass_end", **which.ages, after_at=after[0], after_id=after[1], count=count
    )
    return (rows[0]["created_at"], rows[0]["id"]) if rows else None


async def leave_turn(
    connection: AsyncConnection[Any],
    schema: str,
    holder: UUID,
    after: Place | None,
    removed: int,
    *,
    pause: float,
    every: float,
    longest: float,
) -> tuple[float, int]:
    """Says where the next pass begins; ``None``: the walk is over.

    Passes have a ``pause`` between them; walks ``every`` seconds, more after a longer one, up to ``longest``. Returns
    the seconds until the next pass, and how many workflows the walk has removed so far.
    """
    after_at, after_id = after or (None, None)
    (row,) = await fetch_all(
        connection,
        schema,
        _TABLE,
        "leave_turn",
        holder=holder,
        is_over=after is None,
        after_at=after_at,
        after_id=after_id,
        removed=removed,
        pause=pause,
        every=every,
        longest=longest,
    )
    return float(row["due_in"]), int(row["removed"])
