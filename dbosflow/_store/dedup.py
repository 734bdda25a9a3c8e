"""The table ``dedup``: starts of which a key of their queue allows one at a time. See ``sql/dedup.sql``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dbosflow._records.pins import queue_of
from dbosflow._store.payloads import codecs_of, sealed
from dbosflow._store.queries import fetch_all
from dbosflow._store.start_options import NO_OPTIONS, StartOptions
from dbosflow._store.workflow import keys_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from dbosflow._store.start_options import Dedup
    from dbosflow._store.workflow import Enqueued

_TABLE = "dedup"


class Found(NamedTuple):
    """What there is under the id and the key of a start."""

    what: Literal["known", "applied", "held", "free"]
    """The id is taken; or the start was applied before; or another workflow has the key, or none."""
    workflow_id: str | None
    """The workflow of the id; else the one to which the start has led; else the one that has the key."""
    name: str | None
    """The name of the workflow that has the key."""

    @property
    def is_of_this_start(self) -> bool:
        """Whether an earlier try of the start may have made what there is."""
        return self.what in {"known", "applied"}


class Decided(NamedTuple):
    """What came of a start."""

    workflow_id: str
    queue: str
    status: str
    act: Literal["start", "replace", "succeed"]
    """A workflow was made; or the one that waits was changed; or one was made that waits for the end of another one."""
    predecessor: str | None
    """The workflow that was asked to end."""
    predecessor_queue: str | None


def place_of(row: Enqueued) -> tuple[str, str]:
    """The queue and the key that the start is about. Versions to which workflows are pinned share those of a queue."""
    return queue_of(row.queue), _dedup(row).key


async def look(connection: AsyncConnection[Any], schema: str, rows: Sequence[Enqueued]) -> dict[str, Found]:
    """What there is under these ids and keys. Locks and writes nothing."""
    found = await fetch_all(connection, schema, _TABLE, "look", **_places(rows))
    return {row["id"]: Found(row["found"], row["workflow_id"], row["name"]) for row in found}


async def start(
    connection: AsyncConnection[Any], schema: str, rows: Sequence[Enqueued], reason: str
) -> dict[str, Decided]:
    """Starts these, each with another key, in one transaction, or in a part of the caller's.

    Returns what came of each. One that is missing met a row that was locked, or an id or key that was just taken.
    """
    async with connection.transaction():
        reserved = await fetch_all(connection, schema, _TABLE, "reserve", **_places(rows))
        places = {(row["queue"], row["key"]) for row in reserved}
        rows = [row for row in rows if place_of(row) in places]
        if not rows:
            return {}
        decided = await fetch_all(
            connection, schema, _TABLE, "decide", **_places(rows), **_columns(connection, rows), reason=reason
        )
    return {
        row["id"]: Decided(
            *(row["workflow_id"], row["stored_queue"], row["status"], row["act"]),
            *(row["predecessor"], row["predecessor_queue"]),
        )
        for row in decided
    }


def _places(rows: Sequence[Enqueued]) -> dict[str, Any]:
    places = [place_of(row) for row in rows]
    return {
        "ids": [row.workflow_id for row in rows],
        "queues": [queue for queue, _ in places],
        "keys": [key for _, key in places],
    }


def _columns(connection: AsyncConnection[Any], rows: Sequence[Enqueued]) -> dict[str, Any]:
    codecs = codecs_of(connection)
    options = zip(*(row.options or NO_OPTIONS for row in rows), strict=True)
    return {
        "policies": [_dedup(row).policy for row in rows],
        "longest": [_dedup(row).longest for row in rows],
        "names": [row.name for row in rows],
        "stored_queues": [row.queue for row in rows],
        "priorities": [row.priority for row in rows],
        "inputs": [sealed(codecs, row.input) for row in rows],
        "input_streams": [keys_text(row.input_streams) for row in rows],
        **{f"option_{name}": list(values) for name, values in zip(StartOptions._fields, options, strict=True)},
    }


def _dedup(row: Enqueued) -> Dedup:
    assert row.dedup is not None
    return row.dedup
